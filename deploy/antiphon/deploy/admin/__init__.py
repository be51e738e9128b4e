"""What an administrator sets up: rights."""
