"""What a client may ask, one file per family."""
