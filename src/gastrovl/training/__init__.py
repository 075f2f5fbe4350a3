"""Align, then instruct: conversations and images to a checkpoint, on one device or many."""
