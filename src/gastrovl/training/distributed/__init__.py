"""One training on several processes: who is first, who takes which images, whose weights are in pieces."""
