"""The bookkeeping in the database: the version tables, the history, and who ran each migration."""
