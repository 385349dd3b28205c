"""Read data sets into tensors."""
