"""What an author declares, checked and compiled to data. Pure."""
