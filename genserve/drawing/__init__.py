"""Draw many pictures, from a run or through a server."""
