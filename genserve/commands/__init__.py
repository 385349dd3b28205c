"""What `genserve COMMAND` runs; `scripts/` has the same under its own names."""
