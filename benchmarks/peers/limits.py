"""What every peer's micro-batch may hold; apart, so that no server imports TensorFlow to know it."""

LARGEST = 8
