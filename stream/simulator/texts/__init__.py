"""What is written in a world: its words, how each user and creator puts them, and slips."""
