"""What operators look at, read from the server: a saga's messages, the last sagas, the index of what is parked."""
