"""The migration engine: what there is to do, whether it may be done, and doing it."""
