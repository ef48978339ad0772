"""What a schema is, what it should be, and where the two differ."""
