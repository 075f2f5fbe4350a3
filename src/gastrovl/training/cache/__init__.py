"""What a frozen tower says of images, kept on disk for all epochs and later runs."""
