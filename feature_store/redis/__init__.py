"""The Redis client: connecting, one pipelined connection, scripts. Nothing here knows what is
kept."""
