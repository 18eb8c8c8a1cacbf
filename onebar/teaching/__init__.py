"""Day zero: queries from a teacher, any instruction model, for videos that nobody has tapped under
yet."""
