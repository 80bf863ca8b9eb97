"""Operator commands; they talk to the servers and the buckets, never to the model itself."""
