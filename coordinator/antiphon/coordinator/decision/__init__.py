"""What follows from a journal and a fact: folding, deciding, and the entries that say what was decided. Pure."""
