"""What is kept before a migration loses it, and what a migration would lose."""
