"""How Redis is reached: in the clear, over TLS, or through Sentinels that know which server is the master.

redis://[user[:password]@]host[:6379][/0]
rediss://[user[:password]@]host[:6379][/0]                              certificates are always checked
sentinel://[user[:password]@]host[:26379][,host[:26379]...][/0]?master=NAME[&sentinel_password=...]
"""

import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import redis
from redis.exceptions import ReadOnlyError
from redis.sentinel import Sentinel

_PORTS = {"redis": 6379, "rediss": 6379, "sentinel": 26379}
_SENTINEL_OPTIONS = {"master", "sentinel_password"}


@dataclass(frozen=True)
class Broker:
    """The same Redis in Celery's words."""

    url: str
    transport_options: dict[str, Any]
    use_ssl: dict[str, Any] | None


@dataclass(frozen=True)
class RedisAddress:
    """One address, taken apart; `repr` shows no password."""

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    database: int
    #: As they stand in the address, so percent-encoded.
    user: str = field(repr=False)
    password: str = field(repr=False)
    master: str = ""
    sentinel_password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str) -> "RedisAddress":
        """Return the parts of an address.

        Raises:
            ValueError: saying what was expected; never with a part that may be secret.
        """
        parts = urlsplit(url)
        if parts.scheme not in _PORTS:
            raise ValueError(
                f"expected a redis://, rediss:// or sentinel:// address, received one of {parts.scheme!r}"
            )
        credentials, _, places = parts.netloc.rpartition("@")
        user, _, password = credentials.partition(":")
        hosts = tuple(_host_and_port(place, _PORTS[parts.scheme]) for place in places.split(","))
        if len(hosts) > 1 and parts.scheme != "sentinel":
            raise ValueError(f"expected one host, received {len(hosts)}; several are for sentinel://")
        options = _options(parts)
        return cls(
            scheme=parts.scheme,
            hosts=hosts,
            database=_database(parts.path),
            user=user,
            password=password,
            master=options.get("master", ""),
            sentinel_password=options.get("sentinel_password", ""),
        )

    def client(self, ca_file: str | None = None, **options: Any) -> redis.Redis:
        """Return a client with these `options` of `redis.Redis`; `ca_file` None: the system's authorities."""
        options |= {
            "db": self.database,
            "username": unquote(self.user) or None,
            "password": unquote(self.password) or None,
        }
        if self.scheme == "sentinel":
            sentinels = self._sentinels(options)
            client: redis.Redis = sentinels.master_for(self.master, **options)  # type: ignore[no-untyped-call]
            return client
        ((host, port),) = self.hosts
        if self.scheme == "rediss":
            options |= {"ssl": True, **_checked(ca_file)}
        client = redis.Redis(host=host, port=port, **options)
        client.connection_pool.connection_class = _TlsToMaster if self.scheme == "rediss" else _ToMaster
        return client

    def _sentinels(self, options: dict[str, Any]) -> Sentinel:
        timeouts = {name: value for name, value in options.items() if name.startswith("socket_")}
        own = {**timeouts, **self._sentinel_credentials}
        return Sentinel(self.hosts, sentinel_kwargs=own)  # type: ignore[no-untyped-call]

    @property
    def _sentinel_credentials(self) -> dict[str, str]:
        return {"password": self.sentinel_password} if self.sentinel_password else {}

    def broker(self, ca_file: str | None) -> Broker:
        """Return what Celery is to be configured with."""
        credentials = f"{self.user}:{self.password}@" if self.user or self.password else ""
        url = ";".join(
            f"{self.scheme}://{credentials}{_in_url(host)}:{port}/{self.database}"
            for host, port in self.hosts
        )
        options: dict[str, Any] = {}
        if self.scheme == "sentinel":
            options = {
                "master_name": self.master,
                "sentinel_kwargs": {
                    "socket_timeout": 1,
                    "socket_connect_timeout": 1,
                    **self._sentinel_credentials,
                },
            }
        return Broker(url, options, _checked(ca_file) if self.scheme == "rediss" else None)


class _LeavesReplicas:
    """A connection that goes back to its pool closed when its server is no master any more.

    The address may lead to the one that took over; through Sentinels redis-py does the same by itself.
    """

    def on_connect_check_health(self, *args: Any, **options: Any) -> None:
        """Greet the server."""
        try:
            super().on_connect_check_health(*args, **options)  # type: ignore[misc]
        except AttributeError as error:
            # Such as a mail server, whose greeting is taken for the answer.
            raise redis.ConnectionError("Expected a Redis server there. Another one answers.") from error

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Read an answer."""
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        except ReadOnlyError:
            self.mark_for_reconnect()  # type: ignore[attr-defined]
            raise


class _ToMaster(_LeavesReplicas, redis.Connection):
    pass


class _TlsToMaster(_LeavesReplicas, redis.SSLConnection):
    pass


def _host_and_port(place: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise ValueError("expected host or host:port after the scheme (a password is percent-encoded)")
    return host, port or default_port


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _database(path: str) -> int:
    number = path.strip("/") or "0"
    if not number.isdecimal():
        raise ValueError("expected the number of a database at the end, such as /0")
    return int(number)


def _options(parts: SplitResult) -> dict[str, str]:
    if parts.fragment:
        # The rest of a password that was not encoded, perhaps.
        raise ValueError("expected no '#' (in a password it is written %23)")
    options = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    if parts.scheme != "sentinel":
        # One of them would switch the check of certificates off; the others mean nothing to Celery.
        if parts.query:
            raise ValueError("expected no options after '?' (in a password it is written %3F)")
        return {}
    if not options.get("master") or options.keys() - _SENTINEL_OPTIONS:
        raise ValueError("expected ?master=NAME, and beside it at most sentinel_password, after sentinel://…")
    return options


def _checked(ca_file: str | None) -> dict[str, Any]:
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True, "ssl_ca_certs": ca_file}
