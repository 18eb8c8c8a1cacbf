"""The generator: checkpoints, the engines that run them, batching, the registry."""
