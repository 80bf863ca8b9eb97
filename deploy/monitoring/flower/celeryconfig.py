"""What Flower must know of our Celery; a test holds it to `shared/task_queue.py`."""

from kombu import Queue

broker_connection_retry_on_startup = True
task_default_queue = "celery-inference"
task_queues = [Queue("celery-inference"), Queue("celery-inference-bulk")]
# JSON only, as everywhere.
task_serializer = "json"
accept_content = ["json"]
result_accept_content = ["json"]
# Keys of its own: it has no business with messages that our workers have not acknowledged.
broker_transport_options = {
    "unacked_key": "flower:unacked",
    "unacked_index_key": "flower:unacked_index",
    "unacked_mutex_key": "flower:unacked_mutex",
}
