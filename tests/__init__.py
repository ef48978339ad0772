"""Tests of the project, against a real PostgreSQL."""
