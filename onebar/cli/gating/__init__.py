"""`onebar rules` and `onebar repertoire`: what may be shown."""
