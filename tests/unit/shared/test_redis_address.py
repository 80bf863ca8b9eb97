"""Addresses of Redis are taken apart once, alike for the ledger and for Celery."""

import socket
import ssl
import threading
from contextlib import suppress

import pytest
from pydantic import SecretStr

from shared.errors import JobStoreUnavailable
from shared.job_store_redis import RedisJobStore, connect
from shared.redis_address import RedisAddress
from shared.settings import Settings, read_settings
from shared.task_queue import make_celery


@pytest.mark.parametrize(
    ("url", "user", "password", "host", "port", "database"),
    [
        ("redis://127.0.0.1", None, None, "127.0.0.1", 6379, 0),
        ("redis://:p%40ss@redis:7000/3", None, "p@ss", "redis", 7000, 3),
        ("rediss://hq:a%23b%2Fc@redis.example.org:6380/0", "hq", "a#b/c", "redis.example.org", 6380, 0),
        ("redis://[::1]:6390/0", None, None, "::1", 6390, 0),
    ],
)
def test_the_ledger_and_celery_go_to_the_same_place(
    url: str, user: str | None, password: str | None, host: str, port: int, database: int
) -> None:
    """User, password, host, port and database, decoded once."""
    options = RedisAddress.parse(url).client().connection_pool.connection_kwargs
    assert (options["username"], options["password"], options["db"]) == (user, password, database)
    assert (options["host"], options["port"]) == (host, port)
    broker = make_celery(Settings(redis_url=SecretStr(url))).connection_for_write()
    assert (broker.userid, broker.password or None) == (user, password)
    assert (broker.hostname, broker.port, int(broker.virtual_host)) == (host, port, database)


def test_tls_always_checks_the_certificate_and_the_name() -> None:
    """On both sides, with the system's authorities unless others are named."""
    address = RedisAddress.parse("rediss://redis.example.org")
    ledger = address.client("/ca.pem").connection_pool.connection_kwargs
    celery = address.broker("/ca.pem").use_ssl
    for options in (ledger, celery):
        assert options is not None
        assert options["ssl_cert_reqs"] == ssl.CERT_REQUIRED
        assert options["ssl_check_hostname"] is True
        assert options["ssl_ca_certs"] == "/ca.pem"
    assert RedisAddress.parse("redis://redis.example.org").broker("/ca.pem").use_ssl is None


def test_sentinels_are_all_asked_for_the_named_master() -> None:
    """Celery gets each of them with the master's credentials, and their own password apart."""
    address = RedisAddress.parse("sentinel://hq:pw@a,b:26380/1?master=tiles&sentinel_password=other")
    broker = address.broker(None)
    assert broker.url == "sentinel://hq:pw@a:26379/1;sentinel://hq:pw@b:26380/1"
    assert broker.transport_options["master_name"] == "tiles"
    assert broker.transport_options["sentinel_kwargs"]["password"] == "other"
    sentinels = address.client().connection_pool.sentinel_manager.sentinels
    found = [sentinel.connection_pool.connection_kwargs for sentinel in sentinels]
    assert [(each["host"], each["port"], each["password"]) for each in found] == [
        ("a", 26379, "other"),
        ("b", 26380, "other"),
    ]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://hunter2@h", "redis://, rediss:// or sentinel://"),
        ("redis://:hunter2@", "expected host"),
        ("redis://:hunter2@h:port", "expected host"),
        ("redis://:hunter2@h/zero", "number of a database"),
        ("redis://a,b", "expected one host"),
        ("redis://:hunter2#x@h", "percent-encoded"),
        ("redis://hq:1234#hunter2@h", "%23"),
        ("redis://hq:1234?hunter2@h", "%3F"),
        ("rediss://:hunter2@h/0?ssl_cert_reqs=none", "no options"),
        ("sentinel://:hunter2@a,b/0", "master=NAME"),
        ("sentinel://:hunter2@a/0?master=m&ssl=1", "at most sentinel_password"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_the_password(
    monkeypatch: pytest.MonkeyPatch, url: str, said: str
) -> None:
    """One line at the start, in place of a connection that never comes."""
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(SystemExit) as ended:
        read_settings(Settings)
    assert str(ended.value).startswith("error: REDIS_URL: ")
    assert said in str(ended.value)
    assert "hunter2" not in str(ended.value)


def test_an_address_shows_no_password() -> None:
    """It can be logged."""
    address = RedisAddress.parse("sentinel://hq:hunter2@a/0?master=m&sentinel_password=hunter3")
    assert "hunter" not in repr(address)


def test_a_missing_file_of_authorities_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not at the first connection."""
    monkeypatch.setenv("REDIS_CA_FILE", "/nowhere/ca.pem")
    with pytest.raises(SystemExit, match="REDIS_CA_FILE"):
        read_settings(Settings)


def test_a_server_that_is_no_redis_is_an_outage() -> None:
    """One that greets as POP3 does, whose first line is a good answer in Redis' protocol."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with suppress(OSError):  # closed, once the test is over
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(b"+OK ready\r\n")
                        connection.recv(1000)

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        jobs = RedisJobStore(connect(f"redis://127.0.0.1:{server.getsockname()[1]}/0", 2))
        with pytest.raises(JobStoreUnavailable) as caught:
            jobs.ping()
    assert str(caught.value.__cause__) == "Expected a Redis server there. Another one answers."
