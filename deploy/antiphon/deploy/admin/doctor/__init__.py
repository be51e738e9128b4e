"""`antiphon doctor`: what a deployment lacks, and what mends it."""
