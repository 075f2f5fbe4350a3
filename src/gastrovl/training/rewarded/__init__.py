"""Replies that the model samples to what they are worth, and that to a gradient."""
