"""Two models on the same slice: what would change, and whether it may."""
