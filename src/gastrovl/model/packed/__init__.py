"""Several dialogues about one image in one row: what sees what, how it is attended, and the loss of answers alone."""
