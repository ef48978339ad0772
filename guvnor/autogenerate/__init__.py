"""What ``alembic revision --autogenerate`` writes: revisions in the house style, safe for a busy table."""
