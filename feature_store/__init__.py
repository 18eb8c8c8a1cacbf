"""Records, keys and everything that speaks Redis."""
