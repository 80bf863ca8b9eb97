"""How fast a running stack is, seen from outside, beside its ceiling and its peers."""
