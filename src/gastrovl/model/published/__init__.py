"""Vision-language models that others published whole, trained on the same rows as ours."""
