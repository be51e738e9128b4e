"""What participants promise."""
