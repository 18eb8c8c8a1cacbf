"""Events of other shapes as ours: a mapping is a file of paths, types and conditions."""
