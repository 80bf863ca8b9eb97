"""Every environment variable of the servers, read once, typed and checked at start."""

import base64
import os
import re
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, FilePath, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.redis_address import RedisAddress
from shared.webhook_address import Network, parse_networks

#: What HistoQueue keeps in the bucket.
OUR_FOLDERS = frozenset({"uploads", "results", "heatmaps", "quarantine", "batches", "models", "keys"})
#: Folders, each with its slash.
_PREFIX = r"^([A-Za-z0-9._-]+/)*$"
#: A bucket, which may be a folder of that name.
_BUCKET = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
#: The parts of a host's name as boto3 takes them, or an IPv6 address; then perhaps a port.
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_SERVER = re.compile(rf"https?://({_LABEL}(\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]+\])(:[0-9]{{1,5}})?/?")
#: A hundred years. A date further away could not be written.
_LONGEST_SECONDS = 100 * 365 * 86_400


class Settings(BaseSettings):
    """The settings that the API and the workers share; each field is the variable of the same name."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True, allow_inf_nan=False)

    # --- where things are ---
    #: Broker and ledger; carries the password, so it is never logged.
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    #: The authorities that a `rediss://` server's certificate is checked by; None means the system's.
    redis_ca_file: FilePath | None = None
    #: A folder that API and workers share, for images and outcomes, and where no S3 endpoint is given for the
    #: models, too: for one machine.
    object_store_dir: str | None = None
    #: Empty means AWS S3. Credentials come from boto3's usual chain.
    s3_endpoint_url: str | None = None
    #: The authorities that an https:// endpoint's certificate is checked by; None means the system's.
    s3_ca_file: FilePath | None = None
    s3_region: str = "us-east-1"
    #: Holds `uploads/` and, unless `model_bucket` is set, `models/`.
    s3_bucket: str = Field(default="histoqueue", min_length=3, max_length=63, pattern=_BUCKET)
    #: In front of every key in that bucket, so that it may hold other things too.
    s3_prefix: str = Field(default="", pattern=_PREFIX)
    #: How the server is asked to encrypt; None leaves it to the bucket.
    s3_encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = None
    s3_kms_key_id: str | None = None
    #: Another bucket for the models; it is only ever read.
    model_bucket: str | None = Field(default=None, min_length=3, max_length=63, pattern=_BUCKET)
    model_prefix: str | None = Field(default=None, pattern=_PREFIX)
    model_name: str = Field(default="lung-cnn", pattern=r"^[a-z][a-z0-9-]*$")

    # --- who may ask ---
    #: The server is reached from its own machine alone, although it is bound to another address.
    loopback_only: bool = False

    # --- what is admitted ---
    #: One upload's size, and one image's width times height.
    max_image_bytes: int = Field(default=20_000_000, gt=0)
    max_image_pixels: int = Field(default=4096 * 4096, gt=0)
    #: Jobs that may be open at once; one more gets 429.
    max_open_jobs: int = Field(default=10_000, gt=0)
    #: The same for the jobs of one API key, and the requests that it may send; 0 is any number.
    max_open_jobs_per_key: int = Field(default=0, ge=0)
    max_requests_per_minute: int = Field(default=0, ge=0)
    #: One batch's items, and the bytes of its request; an archive's also as they are unpacked.
    max_batch_items: int = Field(default=100_000, gt=0)
    max_batch_bytes: int = Field(default=2_000_000_000, gt=0)
    #: Objects of the bucket below this may be submitted by their keys; None: none may.
    batch_key_prefix: str | None = Field(default=None, pattern=r"^([A-Za-z0-9._-]+/)+$")
    #: Requests per API process that may hold their answer back for a result.
    max_waiters: int = Field(default=200, ge=0)

    # --- how long ---
    #: How long a job may wait in the queue where the caller does not say.
    job_expires_seconds: float = Field(default=86_400, gt=0, le=_LONGEST_SECONDS)
    #: How long an image is kept after its job has ended.
    image_retention_seconds: float = Field(default=86_400, ge=0, le=_LONGEST_SECONDS)
    #: How long a result is kept, and how long its id then answers 410.
    result_retention_seconds: float = Field(default=7 * 86_400, gt=0, le=_LONGEST_SECONDS)
    tombstone_seconds: float = Field(default=7 * 86_400, gt=0, le=_LONGEST_SECONDS)
    #: How long an image that ended the engine is kept for whoever mends it.
    quarantine_retention_seconds: float = Field(default=30 * 86_400, ge=0, le=_LONGEST_SECONDS)
    #: A claimed job whose worker is silent this long is run again.
    lease_seconds: float = Field(default=15, ge=2)
    #: One claim may hold a job this long at the most, renewals included.
    max_run_seconds: float = Field(default=300, ge=10)
    #: The engine answers a micro-batch within this time, or it is killed.
    engine_timeout_seconds: float = Field(default=30, gt=0)
    #: An engine that takes more memory than this is killed, before the machine runs out of it.
    engine_memory_bytes: int = Field(default=3_000_000_000, ge=500_000_000)

    #: Answer an image that a job of its owner has answered before with that job's result.
    cache_answers: bool = True

    # --- the worker ---
    max_batch_size: int = Field(default=8, ge=1, le=64)
    #: Threads of the engine's runtime; 0 means as many as the process may use.
    engine_threads: int = Field(default=0, ge=0)
    #: Threads that decode images while the model computes others; 0 means as many as the process may use.
    engine_decode_threads: int = Field(default=0, ge=0, le=64)
    #: What runs the network; any but TensorFlow must first reproduce the model's golden tiles.
    inference_runtime: Literal["auto", "tensorflow", "onnxruntime", "mnn"] = "auto"
    #: End at once where TensorFlow sees no graphics card, in place of working slowly without.
    require_gpu: bool = False
    #: Where verified model files are kept between starts.
    model_cache_dir: str = "/tmp/histoqueue-models"  # noqa: S108 - content is digest-checked before use

    # --- webhooks ---
    #: What deliveries are signed with, `whsec_…`; several, with blanks between, all sign. None: no webhooks.
    webhook_secret: SecretStr | None = None
    #: Private and loopback networks that may be sent to, such as 10.1.0.0/16, with commas between them.
    webhook_allow_cidrs: str = ""
    #: The authorities that a receiver's certificate is checked by; None means the system's.
    webhook_ca_file: FilePath | None = None
    #: The longest wait before each retry, in seconds; the last holds for all that follow.
    webhook_retry_seconds: str = Field(default="10,60,300,1800,7200", pattern=r"^[0-9]{1,6}(,[0-9]{1,6})*$")
    #: How long after its event a delivery is tried.
    webhook_give_up_seconds: float = Field(default=86_400, gt=0, le=_LONGEST_SECONDS)
    #: Deliveries that one process sends at the same time, and that all of them send to a key's host.
    webhook_threads: int = Field(default=16, ge=1, le=256)
    webhook_threads_per_host: int = Field(default=4, ge=1)

    # --- metrics and logs ---
    #: Opens /metrics of the API, whether or not there are API keys, and nothing else.
    metrics_key: SecretStr | None = Field(default=None, min_length=16)
    #: Workers tell what they do by Celery's events, which Flower shows.
    task_events: bool = False
    #: Where a worker tells its own metrics, such as 127.0.0.1:9100; the API tells its own at /metrics.
    worker_metrics_address: str | None = Field(default=None, pattern=r"^[0-9A-Za-z.-]+:[0-9]{1,5}$")
    log_level: str = Field(default="INFO", pattern=r"^(DEBUG|INFO|WARNING|ERROR)$")
    log_json: bool = False

    @field_validator("redis_url")
    @classmethod
    def _is_redis_url(cls, value: SecretStr) -> SecretStr:
        RedisAddress.parse(value.get_secret_value())
        return value

    @field_validator("s3_endpoint_url")
    @classmethod
    def _is_a_server(cls, value: str | None) -> str | None:
        if value is None or _is_server(value):
            return value
        # Such as http://object_store:9000, which boto3 knows no end point for.
        raise ValueError(
            "expected http:// or https://, a host (of letters, digits, dots and hyphens) and perhaps a port"
        )

    @field_validator("webhook_secret")
    @classmethod
    def _is_a_signing_secret(cls, value: SecretStr | None) -> SecretStr | None:
        for secret in value.get_secret_value().split() if value else ():
            if not _is_webhook_secret(secret):
                raise ValueError("expected whsec_ and 24 to 64 bytes in base64")
        return value

    @field_validator("webhook_allow_cidrs")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        parse_networks(value)
        return value

    @field_validator("batch_key_prefix")
    @classmethod
    def _is_not_ours(cls, value: str | None) -> str | None:
        first, *rest = (value or "x/").split("/")
        if first in OUR_FOLDERS or {".", ".."} & {first, *rest}:
            raise ValueError("expected a folder of the bucket that HistoQueue does not write to")
        return value

    @model_validator(mode="after")
    def _images_go_first(self) -> "Settings":
        if self.image_retention_seconds > self.result_retention_seconds:
            raise ValueError("expected IMAGE_RETENTION_SECONDS to be at most RESULT_RETENTION_SECONDS")
        return self

    @model_validator(mode="after")
    def _engine_ends_first(self) -> "Settings":
        # Else a job is given to the next worker while the engine may still be at it.
        if self.engine_timeout_seconds >= self.max_run_seconds:
            raise ValueError("expected ENGINE_TIMEOUT_SECONDS to be less than MAX_RUN_SECONDS")
        return self

    @model_validator(mode="after")
    def _goes_with_its_other_half(self) -> "Settings":
        if self.s3_kms_key_id and self.s3_encryption in (None, "AES256"):
            raise ValueError("expected S3_ENCRYPTION aws:kms or aws:kms:dsse with S3_KMS_KEY_ID")
        if self.object_store_dir and self.s3_prefix:
            raise ValueError("expected no S3_PREFIX with OBJECT_STORE_DIR")
        if self.has_models_in_folder and self.model_prefix:
            raise ValueError("expected S3_ENDPOINT_URL with OBJECT_STORE_DIR and MODEL_PREFIX")
        if self.require_gpu and self.inference_runtime in ("onnxruntime", "mnn"):
            raise ValueError("expected INFERENCE_RUNTIME tensorflow or auto with REQUIRE_GPU")
        if self.model_prefix and not self.model_bucket:
            raise ValueError("expected MODEL_BUCKET with MODEL_PREFIX; S3_PREFIX is for S3_BUCKET")
        return self

    @property
    def redis_ca_path(self) -> str | None:
        """The file of `redis_ca_file` as the libraries want it."""
        return str(self.redis_ca_file) if self.redis_ca_file else None

    @property
    def webhook_secrets(self) -> list[str]:
        """What each delivery is signed with, the newest first; empty where there are no webhooks."""
        return self.webhook_secret.get_secret_value().split() if self.webhook_secret else []

    @property
    def webhook_waits(self) -> list[float]:
        """The longest wait in seconds before each retry."""
        return [float(wait) for wait in self.webhook_retry_seconds.split(",")]

    @property
    def webhook_allowed(self) -> tuple[Network, ...]:
        """The networks of `webhook_allow_cidrs`."""
        return parse_networks(self.webhook_allow_cidrs)

    @property
    def has_models_in_folder(self) -> bool:
        """The models lie in `object_store_dir` too: no S3 server was named that has them."""
        return self.object_store_dir is not None and self.s3_endpoint_url is None

    @property
    def models_bucket(self) -> str:
        """The bucket that model versions are read from."""
        return self.model_bucket or self.s3_bucket

    @property
    def models_prefix(self) -> str:
        """What stands in front of `models/` in it."""
        return (self.model_prefix or "") if self.model_bucket else self.s3_prefix


def _is_server(text: str) -> bool:
    try:
        return _SERVER.fullmatch(text) is not None and urlsplit(text).port != 0
    except ValueError:  # a port over 65535, or no address in the brackets
        return False


def _is_webhook_secret(text: str) -> bool:
    prefix, _, encoded = text.partition("_")
    try:
        return prefix == "whsec" and 24 <= len(base64.b64decode(encoded, validate=True)) <= 64
    except ValueError:
        return False


AnySettings = TypeVar("AnySettings", bound=BaseSettings)


def read_settings(kind: type[AnySettings]) -> AnySettings:
    """Read settings from the environment, or end the program with a line for each that is wrong.

    Raises:
        SystemExit: naming each variable and what was expected, and never a value that may be secret.
    """
    # A file of this folder stands for the variable of its name: what compose mounts.
    secrets = os.environ.get("SECRETS_DIR") or None
    if secrets and not Path(secrets).expanduser().is_dir():
        raise SystemExit(f"error: SECRETS_DIR: expected a folder. Received: {secrets}")
    try:
        return kind(_secrets_dir=secrets)
    except ValidationError as error:
        wrong = [
            f"error: {str(item['loc'][0] if item['loc'] else 'settings').upper()}: {item['msg']}"
            for item in error.errors()
        ]
        raise SystemExit("\n".join(wrong)) from None
