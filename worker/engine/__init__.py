"""What runs in the spawned engine process; only `predictor.py` imports TensorFlow."""
