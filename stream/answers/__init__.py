"""One answer looked for in topics and archives: what became of it, and what it was made from."""
