"""Logs: replayed into Kafka, and simulated."""
