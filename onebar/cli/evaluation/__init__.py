"""`onebar evaluate` and `onebar embed`: checkpoints, baselines and embedders, measured."""
