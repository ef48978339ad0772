"""Backups before a migration, and the data that a migration would lose."""
