"""The online operations: how revisions write them, how they run, how far they are and who is in the way."""
