"""Pairs of schemas that hypothesis makes up, and the way from the first to the second of each."""
