"""Dataset in, published model version out; decoding and preprocessing are the worker's own."""
