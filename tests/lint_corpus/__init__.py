"""Revisions kept as data, good and bad ones, over which lint's false alarms and misses are counted."""
