"""Records and images to captions by a multimodal model: asked for, checked against the record, kept in a file."""
