"""From evidence to the queries of a bar: candidates, and the one who answers for a pair."""
