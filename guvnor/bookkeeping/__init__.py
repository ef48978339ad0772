"""What the database keeps on record: the version tables, the history, and who ran what."""
