"""Promises about the project as a whole: what is shipped, how the layers lie, what its files may name."""
