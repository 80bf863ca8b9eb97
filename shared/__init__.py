"""What the API, the workers and the operator commands must agree on; imports nothing else of ours."""
