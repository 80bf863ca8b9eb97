"""The outside things of one process, chosen in one place: real ones from the settings, or all in memory."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from botocore.exceptions import BotoCoreError

from shared.deliveries import Deliveries
from shared.deliveries_redis import RedisDeliveries
from shared.job_store import JobStore
from shared.job_store_memory import MemoryJobStore
from shared.job_store_redis import RedisJobStore, connect
from shared.model_registry import ModelRegistry
from shared.object_store import ObjectStore, Patience
from shared.object_store_files import FileObjectStore
from shared.object_store_memory import MemoryObjectStore
from shared.object_store_s3 import S3ObjectStore, S3Options
from shared.rate_limits import RateLimits, in_process, on_redis
from shared.schemas import wall_clock_ms
from shared.settings import Settings
from shared.task_queue import RedisTaskQueue, TaskQueue
from shared.worker_registry import MemoryWorkerRegistry, RedisWorkerRegistry, WorkerRegistry

#: One try of one Redis call. An idle connection can wait three times as long (its check, and two tries), and
#: an answer is owed within five seconds.
REDIS_TIMEOUT_SECONDS = 1.25


@dataclass(frozen=True)
class Services:
    """What the code talks to; it never knows which side it was given."""

    jobs: JobStore
    objects: ObjectStore
    queue: TaskQueue
    models: ModelRegistry
    workers: WorkerRegistry
    rates: RateLimits
    deliveries: Deliveries


def from_settings(settings: Settings, patience: Patience, connections: int = 32) -> Services:
    """Return the real services; nothing is connected before it is used.

    `connections` is how many threads may use the object store at once.

    Raises:
        SystemExit: where what AWS' own settings say is no credential.
    """
    client = connect(settings.redis_url.get_secret_value(), REDIS_TIMEOUT_SECONDS, settings.redis_ca_path)
    images_in = settings.object_store_dir
    models_in = images_in if settings.has_models_in_folder else None
    how = (settings, patience, connections)
    objects = _open_bucket(images_in, settings.s3_bucket, settings.s3_prefix, *how)
    models = _open_bucket(models_in, settings.models_bucket, settings.models_prefix, *how)
    return Services(
        jobs=RedisJobStore(client),
        objects=objects,
        queue=RedisTaskQueue(client),
        models=ModelRegistry(models, settings.model_name),
        workers=RedisWorkerRegistry(client),
        rates=on_redis(client),
        deliveries=RedisDeliveries(client),
    )


def _open_bucket(
    folder: str | None, bucket: str, prefix: str, settings: Settings, patience: Patience, connections: int
) -> ObjectStore:
    if folder is not None:
        return FileObjectStore(Path(folder), bucket)
    options = S3Options(
        prefix=prefix,
        ca_file=str(settings.s3_ca_file) if settings.s3_ca_file else None,
        encryption=settings.s3_encryption,
        kms_key_id=settings.s3_kms_key_id,
    )
    where = (bucket, settings.s3_endpoint_url, settings.s3_region)
    try:
        return S3ObjectStore(*where, patience, connections, options)
    except BotoCoreError as error:
        # What AWS' own variables and files say: a profile that is not there, half of a key.
        raise SystemExit(f"error: the object store's credentials: {error}") from None


def in_memory(settings: Settings, clock_ms: Callable[[], int] = wall_clock_ms) -> Services:
    """Return services that live and die with this process, for tests."""
    objects = MemoryObjectStore(clock_ms)
    jobs = MemoryJobStore(clock_ms)
    return Services(
        jobs=jobs,
        objects=objects,
        queue=jobs.queue,
        models=ModelRegistry(objects, settings.model_name),
        workers=MemoryWorkerRegistry(),
        rates=in_process(),
        deliveries=jobs.deliveries,
    )
