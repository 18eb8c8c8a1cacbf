"""What may be shown: the rules that people make, what never passes, and the one gate of both."""
