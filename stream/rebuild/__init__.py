"""Another version of the state: filled from the log, checked, warmed, switched to."""
