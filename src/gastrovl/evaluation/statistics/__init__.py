"""Counts per question to scores, intervals and comparisons."""
