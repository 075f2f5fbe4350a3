"""A model and a file of questions to how its answers change with the image, the words and the source."""
