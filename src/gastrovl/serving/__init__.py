"""Loaded checkpoints to an HTTP server: typed answers, OpenAI's chat interface, limits, metrics and logs."""
