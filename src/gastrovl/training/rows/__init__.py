"""Conversations about an image to packed rows: what is said and shown, how often, and how it is put together."""
