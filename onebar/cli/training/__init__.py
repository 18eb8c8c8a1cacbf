"""`onebar train`: stages, checkpoints written anew, models from elsewhere."""
