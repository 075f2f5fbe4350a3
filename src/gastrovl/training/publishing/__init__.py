"""A finished checkpoint to its model card, to a copy of half its size and to a repository of the Hugging Face Hub."""
