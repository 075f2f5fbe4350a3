"""Vision encoder + connector + language model, in the Hugging Face layout. PyTorch starts here."""
