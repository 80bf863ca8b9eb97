"""Nobody gets in where they do not belong, and nobody sees another's job."""

import io
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api import create_app
from api.access import PUBLIC, SCOPES, refuse_open_door
from api.context import context
from shared.api_keys import KeyStore, Scope
from shared.errors import ObjectStoreUnavailable
from shared.object_store_files import FileObjectStore
from shared.services import Services
from shared.settings import Settings
from tests.factories import jpeg_bytes
from tests.unit.api.conftest import Shaky

ELSEWHERE = {"base_url": "http://10.0.0.5", "environ_overrides": {"REMOTE_ADDR": "10.0.0.9"}}


@dataclass
class Holder:
    """Somebody with a key, and what they send."""

    client: FlaskClient
    key: str

    def ask(self, path: str, method: str = "GET", **options: Any) -> Any:
        """Send a request with the key."""
        return self.client.open(
            path, method=method, headers={"Authorization": f"Bearer {self.key}"}, **ELSEWHERE, **options
        )

    def submit(self, **headers: str) -> Any:
        """Submit the one tile."""
        return self.client.post(
            "/predict",
            data=jpeg_bytes(),
            content_type="image/jpeg",
            headers={"X-API-Key": self.key, **headers},
            **ELSEWHERE,
        )


@pytest.fixture
def holder(key_store: KeyStore, app: Flask) -> Any:
    """Make a key with these scopes, and its holder."""

    def make(*scopes: Scope) -> Holder:
        made = Holder(app.test_client(), key_store.create("someone", frozenset(scopes))[1])
        context(app).keys.refresh()
        return made

    return make


def test_without_a_key_everything_is_open_on_loopback(client: FlaskClient) -> None:
    """As `make up` starts."""
    assert client.get("/capacity").status_code == 200


@pytest.mark.parametrize(
    "ends",
    [
        {"base_url": "http://10.0.0.5"},
        {"environ_overrides": {"REMOTE_ADDR": "10.0.0.9"}},
        # Behind a socket file the server's name is whatever the Host header says.
        {"base_url": "http://127.0.0.1", "environ_overrides": {"REMOTE_ADDR": ""}},
    ],
)
def test_without_a_key_nothing_is_open_elsewhere(client: FlaskClient, ends: Any) -> None:
    """Also under a server that did not ask before it started; both ends of the connection count."""
    answer = client.get("/capacity", **ends)
    assert (answer.status_code, answer.get_json()["code"]) == (401, "UNAUTHENTICATED")
    assert client.get("/healthz", **ends).status_code == 200


def test_what_is_published_on_loopback_is_open(services: Services, settings: Settings) -> None:
    """A container is bound to 0.0.0.0 and reached through a published port; the operator says so."""
    app = create_app(services, settings.model_copy(update={"loopback_only": True}))
    there = {"environ_overrides": {"SERVER_NAME": "0.0.0.0", "REMOTE_ADDR": "172.17.0.1"}}
    for host in ("localhost:5000", "127.0.0.1:5000", "127.3.2.1", "[::1]:5000", "LOCALHOST"):
        assert app.test_client().get("/capacity", headers={"Host": host}, **there).status_code == 200, host
    # By any other name it was led there.
    assert app.test_client().get("/capacity", **ELSEWHERE).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:5000"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost.evil.example:5000"},
        {"Host": "10.0.0.5"},
        {"Host": ""},
        {"Host": "[::1"},
        {"Host": "localhost", "Origin": "https://evil.example"},
        {"Host": "localhost", "Origin": "null"},
        {"Host": "localhost", "Origin": "http://localhost:3000"},
        {"Host": "localhost", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_without_a_key_no_other_page_may_ask(client: FlaskClient, headers: dict[str, str]) -> None:
    """A browser sends it from this machine: its page is told apart by what it cannot leave out."""
    for answer in (
        client.get("/capacity", headers=headers),
        client.post("/predict", data=jpeg_bytes(), content_type="image/jpeg", headers=headers),
        client.post("/batches", data={"file": (io.BytesIO(jpeg_bytes()), "a.jpg")}, headers=headers),
    ):
        assert (answer.status_code, answer.get_json()["code"]) == (403, "FORBIDDEN")
    assert client.get("/healthz", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host", "Via", "x-forwarded-for"]
)
def test_without_a_key_nobody_may_ask_through_a_proxy(client: FlaskClient, header: str) -> None:
    """It asks from this machine for whoever asks it, and by any name: `Host` is theirs to choose."""
    answer = client.get("/capacity", headers={"Host": "localhost", header: "203.0.113.9"})
    assert (answer.status_code, answer.get_json()["code"]) == (403, "FORBIDDEN")
    assert "proxy" in answer.get_json()["detail"]


def test_with_a_key_anybody_may_ask_through_a_proxy(holder: Any) -> None:
    """That is how others than this machine come in."""
    one = holder(Scope.READ)
    headers = {"X-API-Key": one.key, "X-Forwarded-For": "203.0.113.9", "Host": "tiles.example"}
    assert one.client.get("/capacity", headers=headers).status_code == 200


def test_a_page_of_the_server_itself_may_ask(client: FlaskClient) -> None:
    """As a browser does, which names the page."""
    own = {"Host": "localhost:5000", "Origin": "http://localhost:5000", "Sec-Fetch-Site": "same-origin"}
    sent = client.post("/predict", data=jpeg_bytes(), content_type="image/jpeg", headers=own)
    assert sent.status_code == 202
    typed = {"Host": "127.0.0.1:5000", "Sec-Fetch-Site": "none"}
    assert client.get("/capacity", headers=typed).status_code == 200


def test_with_a_key_a_page_may_ask_from_anywhere(holder: Any) -> None:
    """Another page does not know it."""
    one = holder(Scope.READ)
    headers = {"Authorization": f"Bearer {one.key}", "Origin": "https://lab.example", "Host": "tiles.example"}
    assert one.client.get("/capacity", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic aHE6aHE="},
        {"X-API-Key": "hq_0123456789abcdef_" + "A" * 43},
        {"X-API-Key": "ä"},
        {"Authorization": "Bearer"},
    ],
)
def test_a_request_without_a_valid_key_is_told_how(
    key_store: KeyStore, client: FlaskClient, headers: dict[str, str]
) -> None:
    """401 with a challenge, on loopback too once there is a key; nothing is stored for it."""
    key_store.create("a", frozenset(Scope))
    answer = client.post("/predict", data=jpeg_bytes(), content_type="image/jpeg", headers=headers)
    assert (answer.status_code, answer.get_json()["code"]) == (401, "UNAUTHENTICATED")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_what_is_not_there_is_so_for_everybody(key_store: KeyStore, client: FlaskClient) -> None:
    """A key would not help; so it is with a method that a route has not."""
    key_store.create("a", frozenset(Scope))
    assert client.get("/nowhere").status_code == 404
    assert client.get("/predict").status_code == 405


def test_one_wrong_character_opens_nothing(holder: Any) -> None:
    """The id alone is no key."""
    one = holder(Scope.ADMIN)
    one.key = one.key[:-1] + ("A" if one.key[-1] != "A" else "B")
    assert one.ask("/capacity").status_code == 401


def test_both_headers_carry_a_key(holder: Any) -> None:
    """Bearer, and X-API-Key."""
    one = holder(Scope.SUBMIT, Scope.READ)
    accepted = one.submit()
    assert accepted.status_code == 202
    assert one.ask(accepted.headers["Location"]).status_code == 202


def test_a_scope_that_is_missing_is_named(holder: Any) -> None:
    """403: asking again with the same key never helps."""
    answer = holder(Scope.READ).submit()
    assert (answer.status_code, answer.get_json()["code"]) == (403, "FORBIDDEN")
    assert "submit" in answer.get_json()["detail"]
    accepted = (one := holder(Scope.SUBMIT)).submit()
    assert one.ask(accepted.headers["Location"]).status_code == 403


def test_every_route_is_public_or_has_a_scope(app: Flask) -> None:
    """A route that was forgotten needs an admin's key; none is forgotten."""
    endpoints = {rule.endpoint for rule in app.url_map.iter_rules()}
    assert endpoints == PUBLIC | SCOPES.keys()
    assert not PUBLIC & SCOPES.keys()


def test_a_key_for_reading_changes_nothing(app: Flask) -> None:
    """What is asked by GET needs it, and everything else one that submits."""
    for rule in app.url_map.iter_rules():
        if rule.endpoint not in PUBLIC:
            reads = "GET" in (rule.methods or ())
            assert SCOPES[rule.endpoint] == (Scope.READ if reads else Scope.SUBMIT), rule


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "{}"),
        ("GET", "{}?wait=1"),
        ("GET", "{}/events"),
        ("POST", "{}/cancel"),
        ("POST", "{}/retry"),
        ("DELETE", "{}"),
    ],
)
@pytest.mark.parametrize("state", ["open", "final", "deleted"])
def test_anothers_job_is_no_job(holder: Any, finish: Any, method: str, path: str, state: str) -> None:
    """The same 404 as for an id that was never issued, whatever has become of the job."""
    owner, other = holder(Scope.SUBMIT, Scope.READ), holder(Scope.SUBMIT, Scope.READ)
    where = owner.submit().headers["Location"]
    if state == "final":
        finish(where.rpartition("/")[2])
    if state == "deleted":
        assert owner.ask(where, "DELETE").status_code == 204
        assert owner.ask(where, "DELETE").status_code == 204
    before = owner.ask(where)
    answer = other.ask(path.format(where), method)
    never_issued = "00000000-0000-4000-8000-000000000000"
    unknown = other.ask(path.format(f"/result/{never_issued}"), method)
    assert (answer.status_code, answer.get_json()["code"]) == (404, "JOB_NOT_FOUND")
    told = answer.get_json()["detail"].replace(where.rpartition("/")[2], never_issued)
    assert told == unknown.get_json()["detail"]
    after = owner.ask(where)
    assert (after.status_code, after.headers.get("ETag")) == (before.status_code, before.headers.get("ETag"))
    assert before.status_code == {"open": 202, "final": 200, "deleted": 410}[state]


def test_an_admin_sees_and_ends_every_job(holder: Any) -> None:
    """It is how an operator helps."""
    where = holder(Scope.SUBMIT).submit().headers["Location"]
    admin = holder(Scope.ADMIN)
    assert admin.ask(where).status_code == 202
    assert admin.ask(f"{where}/cancel", "POST").status_code == 200


def test_a_job_from_before_the_first_key_is_an_admins(key_store: KeyStore, app: Flask, submit: Any) -> None:
    """It belongs to nobody, so nobody else is let at it."""
    where = submit().headers["Location"]
    key = key_store.create("a", frozenset({Scope.READ}))[1]
    admin = key_store.create("b", frozenset({Scope.ADMIN}))[1]
    context(app).keys.refresh()
    assert Holder(app.test_client(), key).ask(where).status_code == 404
    assert Holder(app.test_client(), admin).ask(where).status_code == 202


def test_the_same_idempotency_key_of_two_owners_means_two_jobs(holder: Any) -> None:
    """Its scope is the API key and the path."""
    one, two = holder(Scope.SUBMIT), holder(Scope.SUBMIT)
    first, again = (one.submit(**{"Idempotency-Key": "k"}).get_json()["id"] for _ in range(2))
    assert first == again
    assert two.submit(**{"Idempotency-Key": "k"}).get_json()["id"] != first


def test_a_job_without_a_ledger_still_has_its_owner(holder: Any, services: Services, finish: Any) -> None:
    """Its outcome in the object store says whose it is."""
    from shared.archive import Archive  # noqa: PLC0415

    owner, other = holder(Scope.SUBMIT, Scope.READ), holder(Scope.READ)
    where = owner.submit().headers["Location"]
    job_id = where.rpartition("/")[2]
    finish(job_id)
    Archive(services.objects).put(services.jobs.get(job_id))
    del services.jobs._records[job_id]  # type: ignore[attr-defined]
    assert (owner.ask(where).status_code, other.ask(where).status_code) == (200, 404)


def test_no_key_is_ever_logged(
    holder: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its id is, which opens nothing."""
    caplog.set_level(logging.DEBUG)
    one = holder(Scope.READ)
    one.ask("/capacity")
    one.submit()
    logged = caplog.text + "".join(capsys.readouterr())
    assert "request" in logged
    assert one.key not in logged
    assert one.key.rpartition("_")[2] not in logged


def test_a_store_that_was_away_from_the_start_refuses_every_request(
    services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503, on loopback too: nobody knows whether there are keys."""

    def away(_prefix: str) -> list[str]:
        raise ObjectStoreUnavailable("The object store does not answer.")

    monkeypatch.setattr(services.objects, "list_keys", away)
    client = create_app(services, settings).test_client()
    assert client.get("/capacity").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_a_folder_that_is_not_mounted_yet_opens_no_door(
    services: Services, settings: Settings, tmp_path: Path
) -> None:
    """The keys lie there: an empty place where it should be does not say that there are none."""
    away = FileObjectStore(tmp_path / "objects", "histoqueue")
    client = create_app(replace(services, objects=away), settings).test_client()
    assert client.get("/capacity").status_code == 503
    away.ensure_bucket()
    text = KeyStore(away).create("a", frozenset(Scope))[1]
    assert client.get("/capacity").status_code == 401
    assert client.get("/capacity", headers={"X-API-Key": text}).status_code == 200


def test_a_server_that_everybody_reaches_does_not_start_without_a_key(
    key_store: KeyStore, settings: Settings
) -> None:
    """One line says what to do; with a key, or on loopback, it starts."""
    for hosts in (["0.0.0.0"], ["127.0.0.1", "::"], ["/run/histoqueue.sock"], ["10.1.2.3"], [""]):
        with pytest.raises(SystemExit, match=r"^error: bound to [^\n]+$"):
            refuse_open_door(hosts, settings, key_store)
    refuse_open_door(["127.0.0.1", "::1", "localhost", "127.3.2.1"], settings, key_store)
    refuse_open_door(["0.0.0.0"], settings.model_copy(update={"loopback_only": True}), key_store)
    key_store.create("a", frozenset(Scope))
    refuse_open_door(["0.0.0.0"], settings, key_store)


def test_a_server_starts_while_nobody_can_say_whether_there_is_a_key(
    key_store: KeyStore, settings: Settings
) -> None:
    """It refuses every request until somebody can; ending would not mend the store."""
    shaky = Shaky(key_store)
    shaky.is_away = True
    refuse_open_door(["0.0.0.0"], settings, shaky)  # type: ignore[arg-type]


def test_the_metrics_key_opens_the_metrics_and_nothing_else(services: Services, key_store: KeyStore) -> None:
    """Whether or not there are API keys: what reads the metrics needs no change when the first is made."""
    key = "a key for Prometheus"
    app = create_app(services, Settings(metrics_key=key))
    for _ in range(2):
        asked = app.test_client().get("/metrics", headers={"Authorization": f"Bearer {key}"}, **ELSEWHERE)
        assert asked.status_code == 200
        other = app.test_client().get("/capacity", headers={"Authorization": f"Bearer {key}"}, **ELSEWHERE)
        assert other.status_code == 401
        wrong = app.test_client().get("/metrics", headers={"Authorization": "Bearer another"}, **ELSEWHERE)
        assert wrong.status_code == 401
        key_store.create("someone", frozenset([Scope.READ]))
        context(app).keys.refresh()


def test_who_has_every_seat_of_those_that_wait_gives_one_to_another_key(
    app: Flask, services: Services, holder: Any
) -> None:
    """There are two: one key waits twice, and the other waits all the same."""
    greedy, other = holder(Scope.SUBMIT, Scope.READ), holder(Scope.SUBMIT, Scope.READ)
    job_id, theirs = greedy.submit().get_json()["id"], other.submit().get_json()["id"]
    ask = partial(greedy.ask, f"/result/{job_id}?wait=30")
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(ask) for _ in range(2)]
        until = time.monotonic() + 5
        while len(context(app).waiting._waiters.get(job_id, ())) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        timer = threading.Timer(0.2, services.jobs.cancel, [theirs])
        timer.start()
        assert other.ask(f"/result/{theirs}?wait=30").get_json()["status"] == "canceled"
        timer.join()
        services.jobs.cancel(job_id)
    assert sorted(answer.result().status_code for answer in answers) == [200, 202]
