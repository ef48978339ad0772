"""Database migrations of Guvnor: schema changes that the application never notices."""

__version__ = "0.1.0"
