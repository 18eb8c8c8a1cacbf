"""Videos composed around words of open lists: no world, no users, no lexicon to learn by heart."""
