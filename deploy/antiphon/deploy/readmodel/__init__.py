"""The read model: a row a saga in SQLite or PostgreSQL, kept in step with the streams."""
