"""The processes that stay, and their settings. A process starts from here without the libraries of the command line."""
