"""Contracts as data that outlives the code, and what breaks when they change. Pure."""
