"""An application over services in memory, with a published model, a live worker and a clock to move."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api import create_app
from ops.prepare import webhook_secret
from shared.api_keys import KeyStore
from shared.errors import ObjectStoreUnavailable
from shared.schemas import WorkerStatus
from shared.services import Services, in_memory
from shared.settings import Settings
from tests.factories import jpeg_bytes, write_model
from tests.work import Clock, claim, succeed

Submit = Callable[..., Any]


@pytest.fixture
def clock() -> Clock:
    """The ledger's time, which only moves when it is told to."""
    return Clock(1_800_000_000_125)


@pytest.fixture
def settings() -> Settings:
    return Settings(
        max_image_bytes=300_000,
        max_image_pixels=1_000_000,
        max_open_jobs=5,
        max_waiters=2,
        max_batch_bytes=1_000_000,
        webhook_secret=webhook_secret(),
        cache_answers=False,
    )


@pytest.fixture
def bare_services(settings: Settings, clock: Clock) -> Services:
    """Services without a model or a worker."""
    return in_memory(settings, clock)


@pytest.fixture
def services(bare_services: Services, tmp_path: Path) -> Services:
    bare_services.models.publish(write_model(tmp_path / "1.0.0"))
    bare_services.workers.report(
        WorkerStatus(name="w1", model_name="lung-cnn", model_version="1.0.0", reported_at_ms=0)
    )
    return bare_services


@pytest.fixture
def app(services: Services, settings: Settings) -> Flask:
    return create_app(services, settings)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def submit(client: FlaskClient) -> Submit:
    """Send a JPEG as the body; keywords go to the test client."""

    def send(image: bytes | None = None, path: str = "/predict", **options: Any) -> Any:
        options.setdefault("content_type", "image/jpeg")
        return client.post(path, data=jpeg_bytes() if image is None else image, **options)

    return send


@pytest.fixture
def finish(services: Services) -> Callable[[str], None]:
    """Do a worker's work: claim the job and write a result."""

    def run(job_id: str) -> None:
        assert claim(services.jobs, job_id) is not None
        assert succeed(
            services.jobs, job_id, {"class": "lung_aca", "confidence": 0.97}, timings_ms={"fetch": 1}
        )

    return run


@pytest.fixture
def key_store(services: Services) -> KeyStore:
    return KeyStore(services.objects)


class Shaky:
    """A key store that can be away."""

    def __init__(self, inner: KeyStore) -> None:
        self._inner = inner
        self.is_away = False

    def read(self, known: Any = None) -> Any:
        """Read the keys, or say that the store is away."""
        if self.is_away:
            raise ObjectStoreUnavailable("The object store does not answer.")
        return self._inner.read(known)
