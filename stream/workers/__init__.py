"""The worker processes, each a loop beside pure work, and what they share."""
