"""Learning from what the model itself writes, by a reward: after stages 1 to 3."""
