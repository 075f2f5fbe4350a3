"""Answers and truths to measures of each task."""
