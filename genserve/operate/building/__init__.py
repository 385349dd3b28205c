"""Build archives: which backend a network gets, and the packing itself."""
