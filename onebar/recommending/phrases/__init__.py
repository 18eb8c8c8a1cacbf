"""Queries that stand in a text: spans of it, what is put together of them, and what words are in a
name."""
