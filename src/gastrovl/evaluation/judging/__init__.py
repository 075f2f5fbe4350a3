"""Replies to ratings by a judge model and by people, and to how far those agree with each other."""
