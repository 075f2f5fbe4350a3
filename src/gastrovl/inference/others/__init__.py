"""Answers that are not ours: described models, servers, published weights, and people."""
