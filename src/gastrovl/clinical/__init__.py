"""The medical vocabulary: labels and replies in text become terms of a three-level tree. Imports no torch."""
