"""Sagas of every shape, driven through everything that may happen, and looked at in every state."""
