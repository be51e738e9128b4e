"""What the types promise: right code passes both checkers, wrong code is refused by both."""
