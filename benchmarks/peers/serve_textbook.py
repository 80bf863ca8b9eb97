"""The textbook Celery way's front: Flask, `delay`, and AsyncResult for whoever asks again."""

import base64
import sys

from celery.result import AsyncResult
from flask import Flask, jsonify, request
from textbook_tasks import celery_app, predict
from waitress import serve

app = Flask(__name__)


@app.post("/predict")
def submit():
    """Queue one multipart upload."""
    task = predict.delay(base64.b64encode(request.files["file"].read()).decode())
    return jsonify({"id": task.id}), 202


@app.get("/result/<task_id>")
def result(task_id: str):
    """Tell how far it is."""
    found = AsyncResult(task_id, app=celery_app)
    if not found.ready():
        return jsonify({"state": found.state}), 202
    answer = found.get()
    found.forget()
    return jsonify(answer)


if __name__ == "__main__":
    serve(app, host="127.0.0.1", port=int(sys.argv[1]), threads=16)
