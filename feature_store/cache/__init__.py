"""The query cache: bodies ready to send, in Redis and, until Redis says they changed, in this
process."""
