"""The door for people, browsers and strangers in front of a TorchServe: a proxy, training jobs and a page."""
