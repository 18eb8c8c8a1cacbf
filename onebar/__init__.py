"""The method: evidence, prompt, generator, training. Knows no Kafka, no Redis, no HTTP."""

__version__ = "0.2.0.dev0"
