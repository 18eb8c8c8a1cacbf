"""Offline evaluation: what a recommender would have answered to logged triggers, and how good
that is. Needs the extra `evaluate`."""
