"""Networks and their losses, one file per family."""
