"""`onebar doctor`: what is reachable, what is wrong, what to do."""
