"""The version of this client, in one place."""

VERSION = "0.1.0"
