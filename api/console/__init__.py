"""What an operator looks at and does: numbers of all parts, dead letters, models."""
