"""What every process of ours sets up: logs, garbage collection, tasks, files that appear whole."""
