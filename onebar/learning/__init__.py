"""What orders candidates is learned: the worth of phrases, and what people tap."""
