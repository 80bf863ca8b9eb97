"""The ledger and the queue over TLS, and through a Sentinel whose master changes."""

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from ops.processes import Child, wait_until
from ops.servers import HOST, RedisServer, free_port, redis_program
from shared import keys
from shared.deliveries import Taken
from shared.errors import HistoQueueError, JobStoreUnavailable, QueueUnavailable
from shared.object_store import REQUEST_PATIENCE
from shared.services import Services, from_settings
from shared.settings import Settings, read_settings
from shared.webhook_queue import CeleryWebhookQueue, make_webhook_celery
from tests.tls import TlsFront, make_certificates

pytestmark = pytest.mark.integration
MASTER = "tiles"
TAKEN = Taken("an-id_1_1", "receiver.example.org")


@pytest.fixture
def tls_port(tmp_path: Path, redis_server: RedisServer, redis_client: redis.Redis) -> Iterator[int]:
    """Where the empty Redis is reached over TLS; its authority is in `ca.pem`."""
    front = TlsFront(make_certificates(tmp_path), redis_server.port)
    yield front.port
    front.close()


def services_at(monkeypatch: pytest.MonkeyPatch, url: str, ca_file: Path | None = None) -> Services:
    """Return the services as a program with these settings has them."""
    monkeypatch.setenv("REDIS_URL", url)
    monkeypatch.setenv("REDIS_CA_FILE", str(ca_file or ""))
    monkeypatch.setenv("S3_ENDPOINT_URL", f"http://{HOST}:1")
    return from_settings(read_settings(Settings), REQUEST_PATIENCE)


def both_work(services: Services) -> bool:
    """Write through the ledger's connection and Celery's own."""
    services.jobs.found()
    celerys_queue().enqueue(TAKEN)
    return services.jobs.is_founded()


def celerys_queue() -> CeleryWebhookQueue:
    """Return a queue that Celery writes to, with the same settings."""
    return CeleryWebhookQueue(make_webhook_celery(read_settings(Settings)))


def test_ledger_and_queue_work_over_tls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tls_port: int, redis_server: RedisServer
) -> None:
    """With the authority that REDIS_CA_FILE names."""
    url = f"rediss://:{redis_server.password}@{HOST}:{tls_port}/0"
    assert both_work(services_at(monkeypatch, url, tmp_path / "ca.pem"))


@pytest.mark.parametrize("trust", ["system", "other"])
def test_a_server_without_a_trusted_certificate_gets_no_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tls_port: int, redis_server: RedisServer, trust: str
) -> None:
    """Neither the system's authorities nor another one vouch for it."""
    other = make_certificates(tmp_path / "other").ca_file if trust == "other" else None
    services = services_at(monkeypatch, f"rediss://:{redis_server.password}@{HOST}:{tls_port}/0", other)
    with pytest.raises(JobStoreUnavailable) as caught:
        services.jobs.ping()
    assert "CERTIFICATE_VERIFY_FAILED" in str(caught.value.__cause__)
    with pytest.raises(QueueUnavailable):
        celerys_queue().enqueue(TAKEN)


def test_a_certificate_for_another_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_server: RedisServer
) -> None:
    """Trusted, but somebody else's."""
    certificates = make_certificates(tmp_path, host="redis.example.org")
    front = TlsFront(certificates, redis_server.port)
    url = f"rediss://:{redis_server.password}@{HOST}:{front.port}/0"
    with pytest.raises(JobStoreUnavailable) as caught:
        services_at(monkeypatch, url, certificates.ca_file).jobs.ping()
    front.close()
    assert "IP address mismatch" in str(caught.value.__cause__)


@dataclass(frozen=True)
class Watched:
    """A master, its copy, and a Sentinel that watches both."""

    sentinel_port: int
    password: str
    sentinel_password: str

    @property
    def url(self) -> str:
        """Where a program reaches whichever is the master."""
        return (
            f"sentinel://:{self.password}@{HOST}:{self.sentinel_port}/0"
            f"?master={MASTER}&sentinel_password={self.sentinel_password}"
        )

    def sentinel(self) -> redis.Redis:
        """Return a client of the Sentinel itself."""
        return redis.Redis(HOST, self.sentinel_port, password=self.sentinel_password, decode_responses=True)

    def master_port(self) -> int:
        """Ask the Sentinel."""
        with self.sentinel() as client:
            return int(client.sentinel_get_master_addr_by_name(MASTER)[1])


def _settings(port: int, folder: Path, *lines: str) -> str:
    return "\n".join((f"bind {HOST}", f"port {port}", f'dir "{folder}"', 'save ""', *lines, ""))


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """Three processes of the bundled server, ended by their ids."""
    password, own = secrets.token_hex(8), secrets.token_hex(8)
    ports = [free_port() for _ in range(3)]
    keys = (f"requirepass {password}", f"masterauth {password}", "repl-diskless-sync-delay 0")
    texts = {
        "master": _settings(ports[0], tmp_path, *keys),
        "copy": _settings(ports[1], tmp_path, *keys, f"replicaof {HOST} {ports[0]}"),
        "sentinel": _settings(
            ports[2],
            tmp_path,
            f"requirepass {own}",
            f"sentinel monitor {MASTER} {HOST} {ports[0]} 1",
            f"sentinel auth-pass {MASTER} {password}",
            f"sentinel down-after-milliseconds {MASTER} 1000",
        ),
    }
    children = []
    for name, text in texts.items():
        (tmp_path / f"{name}.conf").write_text(text)
        command = [redis_program(), str(tmp_path / f"{name}.conf")]
        command += ["--sentinel"] if name == "sentinel" else []
        children.append(Child(name, command, tmp_path / f"{name}.log"))
        children[-1].start()
    found = Watched(ports[2], password, own)
    try:
        assert wait_until(lambda: _has_copy(found), 30, 0.2), (tmp_path / "sentinel.log").read_text()
        yield found
    finally:
        for child in children:
            child.stop(10)


def _has_copy(watched: Watched) -> bool:
    try:
        with watched.sentinel() as client:
            copies = client.sentinel_slaves(MASTER)
    except redis.RedisError:
        return False
    return bool(copies) and copies[0]["master-link-status"] == "ok"


def _is_copy(port: int, password: str) -> bool:
    with redis.Redis(HOST, port, password=password) as client:
        return bool(client.info("replication")["role"] == "slave")


def _soon(call: Callable[[], bool]) -> bool:
    """Repeat a call that may meet an outage; a program does so too."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if call():
                return True
        except HistoQueueError:
            time.sleep(0.2)
    return False


def test_ledger_and_queue_follow_the_master_that_the_sentinel_names(
    monkeypatch: pytest.MonkeyPatch, watched: Watched
) -> None:
    """What was written is there after a failover, and the next write goes to the new master."""
    services = services_at(monkeypatch, watched.url)
    assert both_work(services)
    before = watched.master_port()
    with watched.sentinel() as client:
        client.execute_command("SENTINEL", "FAILOVER", MASTER)
    # Until it is a copy itself, the old master goes on taking writes, which are lost then: see
    # docs/how-to/redis.md. What is written after that must be at the new one.
    assert wait_until(lambda: watched.master_port() != before and _is_copy(before, watched.password), 60, 0.2)
    assert _soon(services.jobs.is_founded)
    assert _soon(lambda: both_work(services))
    with redis.Redis(HOST, watched.master_port(), password=watched.password) as client:
        assert client.llen(keys.WEBHOOK_QUEUE) == 2


def test_a_name_that_no_sentinel_knows_is_an_outage(
    monkeypatch: pytest.MonkeyPatch, watched: Watched
) -> None:
    """As an address without a server is."""
    services = services_at(monkeypatch, watched.url.replace(f"master={MASTER}", "master=other"))
    with pytest.raises(JobStoreUnavailable):
        services.jobs.ping()
    with pytest.raises(QueueUnavailable):
        celerys_queue().enqueue(TAKEN)
