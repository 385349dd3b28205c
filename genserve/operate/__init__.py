"""Archives, the server's process and its health: the standard library only, so that it runs anywhere."""
