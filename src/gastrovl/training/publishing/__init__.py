"""A finished checkpoint to its model card and to a repository of the Hugging Face Hub."""
