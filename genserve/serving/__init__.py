"""What an archive carries: requests in, replies out."""
