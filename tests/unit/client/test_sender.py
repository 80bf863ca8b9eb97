"""Which tiles of a run share a request, and what becomes of a request that goes wrong."""

import hashlib
import json
import sqlite3
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from flask import Response, abort, request
from histoqueue import Client, UnexpectedAnswer
from histoqueue._journal import Entry, Item, Journal
from histoqueue._scan import Found
from histoqueue._sender import idempotency_key

from ops.processes import wait_until
from tests.api_server import ApiServer
from tests.unit.client.conftest import forget, run, table


def test_a_key_is_the_same_for_the_same_file_of_the_same_run() -> None:
    """And another one for anything else; it shows nothing of the name."""
    key = idempotency_key("run", Item("a.png", 0), b"x")
    assert key == idempotency_key("run", Item("a.png", 0), b"x")
    others = {
        idempotency_key("other", Item("a.png", 0), b"x"),
        idempotency_key("run", Item("b.png", 0), b"x"),
        idempotency_key("run", Item("a.png", 1), b"x"),
        idempotency_key("run", Item("a.png", 0), b"y"),
        idempotency_key("run", Item("\udce4.png", 0), b"x"),
    }
    assert len(others | {key}) == 6
    assert "a.png" not in key
    assert len(key) <= 255


def test_tiles_that_were_answered_before_are_not_computed_again(
    server: ApiServer, client: Client, many_tiles: Path, at_once: int
) -> None:
    """By another run, whose journal is not this one's."""
    server.remembers = True
    run(client, "tiles", at_once=at_once)
    server.is_working.clear()
    assert run(client, "tiles", outs=("again.ndjson",), at_once=at_once).succeeded == 10
    assert all(json.loads(line)["cached"] for line in Path("again.ndjson").read_text().splitlines())


def test_tiles_share_requests(server: ApiServer, client: Client, many_tiles: Path) -> None:
    """As many as are to be on their way at once are in four of them."""
    assert run(client, "tiles", at_once=16).succeeded == 10
    sizes = Counter(job.spec.batch for job in server.jobs)
    assert sorted(sizes.values()) == [2, 4, 4]
    assert {job.spec.priority for job in server.jobs} == {"bulk"}
    contents = {hashlib.sha256(path.read_bytes()).hexdigest() for path in many_tiles.iterdir()}
    assert {job.spec.input.sha256 for job in server.jobs} == contents


@pytest.mark.parametrize("lost", [("code", "row"), ("code", "row", "parcel")])
def test_what_the_journal_forgot_is_found_again(
    lost: tuple[str, ...], server: ApiServer, client: Client, many_tiles: Path
) -> None:
    """Rows, or rows with what went together: the same files make the same requests, so the same jobs."""
    run(client, "tiles", at_once=16)
    before = Path("results.csv").read_text()
    forget(*lost)
    assert run(client, "tiles", at_once=16).done_now == 10
    assert len(server.jobs) == 10
    assert Path("results.csv").read_text() == before


@pytest.mark.parametrize("then", [2, 4, 100])
def test_what_went_together_goes_together_again(
    then: int, server: ApiServer, client: Client, many_tiles: Path
) -> None:
    """Whatever --concurrency says now, and however many of them are done: no file gets a second job."""
    run(client, "tiles", at_once=16)
    with closing(sqlite3.connect("results.csv.journal", isolation_level=None)) as journal:
        journal.execute("UPDATE items SET code = NULL, row = NULL WHERE CAST(path AS TEXT) LIKE '%3%'")
    assert run(client, "tiles", at_once=then).done_now > 1
    assert len(server.jobs) == 10
    assert len(table()) == 10


def test_an_answer_that_got_lost_makes_no_second_job(
    server: ApiServer, client: Client, many_tiles: Path
) -> None:
    """The request is sent again under its key."""
    lost = []

    def lose(answer: Response) -> Response:
        if request.path == "/batches" and len(lost) < 3:
            lost.append(answer)
            return Response("the proxy is away", status=502)
        return answer

    server.app.after_request(lose)
    assert run(client, "tiles", at_once=16).succeeded == 10
    assert (len(lost), len(server.jobs)) == (3, 10)


def test_a_server_without_batches_gets_each_tile_by_itself(
    server: ApiServer, client: Client, many_tiles: Path
) -> None:
    """An older one has no such route."""
    server.app.before_request(lambda: abort(404) if request.path == "/batches" else None)
    assert run(client, "tiles", at_once=16).succeeded == 10
    assert {job.spec.batch for job in server.jobs} == {None}


def test_a_batch_that_is_too_much_is_sent_one_by_one(tmp_path: Path, many_tiles: Path) -> None:
    """A server may take fewer in one request."""
    (tmp_path / "small").mkdir()
    with ApiServer(tmp_path / "small", max_batch_items=3) as server, Client(server.url) as client:
        assert run(client, "tiles", at_once=16).succeeded == 10
        assert sorted(Counter(job.spec.batch for job in server.jobs).values()) == [2, 8]


def test_files_of_which_none_is_an_image_are_rows(client: Client, tiles: Path) -> None:
    """The server then takes no batch, and each has its own refusal."""
    for path in tiles.iterdir():
        path.write_text("<!doctype html>")
    assert run(client, "tiles", at_once=16).failures == {"UNSUPPORTED_IMAGE_FORMAT": 3}


def test_a_page_in_place_of_the_server_makes_no_rows(
    server: ApiServer, client: Client, many_tiles: Path, at_once: int
) -> None:
    """Of a network that asks for its password again in the middle: the same call goes on with the rest."""
    pages, is_in = [], threading.Event()

    def log_in() -> Response | None:
        if len(server.jobs) < 4 or is_in.is_set():
            return None
        pages.append(request.path)
        return Response("<!doctype html><title>Log in</title>", content_type="text/html")

    server.app.before_request(log_in)
    with pytest.raises(UnexpectedAnswer, match="Log in"):
        run(client, "tiles", at_once=at_once)
    assert pages
    is_in.set()
    summary = run(client, "tiles", at_once=at_once)
    assert (summary.succeeded, summary.failed, len(server.jobs)) == (10, 0, 10)


def test_a_job_that_somebody_deletes_meanwhile_is_made_again(
    server: ApiServer, client: Client, tiles: Path
) -> None:
    """The batch ends without it."""
    server.is_working.clear()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, client, "tiles", at_once=16)
        assert wait_until(lambda: len(server.jobs) == 3, 20)
        client.get(server.jobs[1].id).delete()
        server.is_working.set()
        assert running.result(30).succeeded == 3
    assert len(server.jobs) == 4


def test_what_an_older_client_began_goes_on_as_it_was(
    server: ApiServer, client: Client, many_tiles: Path
) -> None:
    """It sent each file by itself; together they would be other requests, and so other jobs."""
    run(client, "tiles", at_once=2)
    with closing(sqlite3.connect("results.csv.journal", isolation_level=None)) as journal:
        for statement in (
            "UPDATE meta SET value = '1' WHERE name = 'format'",
            "UPDATE items SET code = NULL, row = NULL",
            "DROP INDEX unsent",
            "DROP INDEX parcels",
            "ALTER TABLE items DROP COLUMN parcel",
        ):
            journal.execute(statement)
    assert run(client, "tiles", at_once=16).done_now == 10
    assert len(server.jobs) == 10


def test_tiles_that_are_large_go_fewer_together(tmp_path: Path) -> None:
    """A request holds no more than so many bytes, but always one file."""
    with Journal(tmp_path / "journal", {}) as journal:
        sizes = {"a": 40, "b": 40, "c": 40, "d": 500, "e": 10, "f": 10, "g": 10, "h": 10}
        journal.add(Found(name, f"{size}:1") for name, size in sizes.items())
        packed = [[item.path for item in parcel] for parcel in journal.parcels(3, 100)]
    assert packed == [["a", "b"], ["c"], ["d"], ["e", "f", "g"], ["h"]]


def test_the_first_parcels_are_small(tmp_path: Path) -> None:
    """So that there is work soon; which one is the first is kept, as its files are."""
    with Journal(tmp_path / "journal", {}) as journal:
        journal.add(Found(f"{number:03}", "1:1") for number in range(200))
        parcels = journal.parcels(64, 1_000_000)
        assert [len(next(parcels)) for _ in range(4)] == [8, 16, 32, 64]
        for item in next(parcels):
            journal.record(Entry(item.path, "", {}))
    with Journal(tmp_path / "journal", {}) as journal:
        assert [len(parcel) for parcel in journal.parcels(64, 1_000_000)] == [8, 16, 32, 64, 16]
