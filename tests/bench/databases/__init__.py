"""How fast sagas are whose effects are in a database, beside a choreography that was written by hand."""
