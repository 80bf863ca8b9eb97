"""The bare worker: reads the image, computes nothing, keeps an answer in Redis and tells of it."""

import json
import os
from pathlib import Path

import redis
from celery import Celery

FOLDER = Path(os.environ["BENCH_FOLDER"])
#: Told as `JOB ANSWER`.
ENDS = "ends"
#: The form of ours, so that the client does the same with it.
ANSWER = json.dumps({"status": "succeeded", "result": {"probabilities": {"none": 1.0}}})

celery_app = Celery("bare", broker=os.environ["BENCH_REDIS"])
celery_app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
)
client = redis.Redis.from_url(os.environ["BENCH_REDIS"], decode_responses=True)


@celery_app.task(name="bare.answer")
def answer(job: str) -> None:
    """Answer one tile."""
    (FOLDER / job).read_bytes()
    pipe = client.pipeline(transaction=False)
    pipe.set(f"job:{job}", ANSWER, ex=3600)
    pipe.publish(ENDS, f"{job} {ANSWER}")
    pipe.execute()
