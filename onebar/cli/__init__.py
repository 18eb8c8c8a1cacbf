"""The command line, a file for each family of commands. May import all; nothing imports it."""
