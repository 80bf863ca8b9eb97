"""The textbook Celery worker: the image in the message, as base64; the result in Redis."""

import base64
import os

from celery import Celery
from celery.signals import worker_process_init

celery_app = Celery("textbook", broker=os.environ["BENCH_REDIS"], backend=os.environ["BENCH_REDIS"])
_loaded = []


@worker_process_init.connect
def load(**_):
    """Load the model in each forked process: TensorFlow does not survive a fork."""
    import numpy as np
    from network import Network

    network = Network()
    _loaded.append(network)
    network.predict_slowly(np.stack([np.zeros((network._side[1], network._side[0], 3), np.uint8)]))


@celery_app.task(name="textbook.predict")
def predict(image: str) -> list[float]:
    """Answer one tile."""
    network = _loaded[0]
    return network.predict_slowly(network.prepare(base64.b64decode(image))[None])[0].tolist()
