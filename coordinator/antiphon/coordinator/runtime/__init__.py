"""The process that decides: what wakes it, what it stores, and in which order."""
