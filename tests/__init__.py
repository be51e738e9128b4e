"""Antiphon's tests, one folder for each thing that is promised."""
