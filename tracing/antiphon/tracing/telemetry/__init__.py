"""What a process says of itself while it works: logs, counts, metrics, live spans."""
