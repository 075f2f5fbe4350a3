"""A config to what its run needs, before anything is downloaded or allocated."""
