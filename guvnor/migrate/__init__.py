"""Migrations: what is there to do, whether it may be done, and doing it."""
