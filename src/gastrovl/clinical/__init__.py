"""The medical vocabulary: labels and replies in text become terms with a place in a three-level tree. Imports no torch."""
