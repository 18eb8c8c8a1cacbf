"""What ranking stands on, whatever is ranked: trees, known queries, how near two texts are."""
