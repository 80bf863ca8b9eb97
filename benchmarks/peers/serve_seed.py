"""The seed's way: Flask and waitress, `model.predict` in the request's thread."""

import sys

import numpy as np
from flask import Flask, jsonify, request
from network import Network
from waitress import serve

app = Flask(__name__)
network = Network()
network.predict_slowly(np.stack([np.zeros((network._side[1], network._side[0], 3), np.uint8)]))


@app.post("/predict")
def predict():
    """Answer one multipart upload."""
    batch = network.prepare(request.files["file"].read())[np.newaxis]
    return jsonify(network.predict_slowly(batch)[0].tolist())


@app.get("/healthz")
def healthz():
    """Say that the model is loaded."""
    return "ok"


if __name__ == "__main__":
    serve(app, host="127.0.0.1", port=int(sys.argv[1]), threads=8)
