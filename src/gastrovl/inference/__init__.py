"""A checkpoint and images to replies with a confidence."""
