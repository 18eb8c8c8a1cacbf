"""The local stack: servers, workers and a feed on this machine. May import all; only the command
line imports it."""
