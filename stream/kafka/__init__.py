"""Kafka: records in, messages out, topics, offsets. Nothing here knows what an event means."""
