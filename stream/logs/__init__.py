"""Logs of events in files: read, replayed, folded, compared; and letters that came back."""
