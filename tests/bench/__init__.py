"""How fast sagas are, beside the floor: the least that any program must do for the same durable messages."""
