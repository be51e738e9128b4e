"""Sagas and traces drawn for people."""
