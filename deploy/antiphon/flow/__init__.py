"""Who says what to whom, and what follows: known from definitions, participants and contracts before anything runs."""
