"""For people who look: why a bar says what it says, and what changes it, as it happens."""
