"""Read and write run directories, and export them."""
