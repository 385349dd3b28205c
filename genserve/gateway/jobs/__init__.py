"""Training over HTTP: what a client may ask for, the queue, and the work itself."""
