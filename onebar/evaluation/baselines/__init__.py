"""What a generator is compared with: anchors, titles, and a cascade that learns from the same
log."""
