"""Other ways to serve the same network, each a program of its own in an environment of its own."""
