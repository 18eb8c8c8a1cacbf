"""Behaviour-aligned embedding: what videos and queries have to do with each other by what people
do, not by what words they share (paper, section on collaborative anchors)."""
