"""One answer within its deadline: cache, model, fallback."""
