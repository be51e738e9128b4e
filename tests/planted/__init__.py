"""Bugs planted in the shipped files, each of which some test must notice."""
