"""What people are shown of a saga, read from its messages without its definition."""
