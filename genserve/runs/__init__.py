"""Run directories and what is exported from them."""
