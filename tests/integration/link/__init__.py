"""The connection: what it makes of bytes, before anything is a saga."""
