"""The online operations: how revisions call them, how they run, their progress and their blockers."""
