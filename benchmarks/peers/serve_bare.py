"""The bare front: keeps the image on the disk, has Celery carry its name, and waits for the answer.

No model, no check, no record: what Flask, gunicorn, Celery and Redis cost by themselves where nothing that
was accepted may be lost.
"""

import os
import threading
import uuid

from bare_tasks import ENDS, FOLDER, answer, client
from flask import Flask, Response, request

#: By job: what its request waits for.
waiting: dict[str, "Waiter"] = {}
app = Flask(__name__)


class Waiter:
    """A request that waits for its job."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.answer = ""


@app.post("/predict")
def predict() -> Response:
    """Answer one tile."""
    job = str(uuid.uuid4())
    descriptor = os.open(FOLDER / job, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        os.write(descriptor, request.get_data())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    waiter = waiting[job] = Waiter()
    answer.delay(job)
    waiter.ended.wait(30)
    del waiting[job]
    return Response(waiter.answer, mimetype="application/json")


def listen() -> None:
    """Wake who waits."""
    heard = client.pubsub(ignore_subscribe_messages=True)
    heard.subscribe(ENDS)
    for message in heard.listen():
        job, _, told = message["data"].partition(" ")
        if waiter := waiting.get(job):
            waiter.answer = told
            waiter.ended.set()


threading.Thread(target=listen, daemon=True).start()
