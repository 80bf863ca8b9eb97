"""A run over many files: one row for each, whatever it is, and no job twice."""

import csv
import hashlib
import json
import os
import resource
import sqlite3
import sys
import threading
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Response, abort, request
from histoqueue import (
    CallerError,
    Client,
    InvalidRequest,
    JournalError,
    UnexpectedAnswer,
    UnknownModelVersion,
)
from histoqueue._bulk import Bulk, Summary
from histoqueue._export import write_csv, written_whole
from histoqueue._geojson import Layout, feature
from histoqueue._journal import Entry, Item, Journal
from histoqueue._places import Manifest, NamePattern
from histoqueue._pool import run_over
from histoqueue._scan import Found, scan
from histoqueue._sender import idempotency_key

from ops.processes import wait_until
from shared.errors import InvalidRequest as ServerRefusal
from tests.api_server import FAILING_WIDTH, ApiServer
from tests.factories import png_bytes


@pytest.fixture(params=[2, 16], ids=["one by one", "together"])
def at_once(request: pytest.FixtureRequest) -> int:
    """So few tiles on their way that each goes by itself, and so many that each request has four."""
    return int(request.param)


def run(client: Client, *sources: str, outs: tuple[str, ...] = ("results.csv",), **how: Any) -> Summary:
    """Do a run, with two tiles at once unless `at_once` says how many."""
    options, at_once = how.pop("options", {}), how.pop("at_once", 2)
    return Bulk(client, sources, [Path(out) for out in outs], options, concurrency=at_once, **how).run()


def forget(*columns: str) -> None:
    """Take from the journal what a power cut may."""
    with closing(sqlite3.connect("results.csv.journal", isolation_level=None)) as journal:
        journal.execute(f"UPDATE items SET {', '.join(f'{column} = NULL' for column in columns)}")


@pytest.fixture
def many_tiles(tiles: Path) -> Path:
    """The folder with ten good tiles."""
    for number in range(3, 10):
        (tiles / f"x{number * 64}_y{number * 48}.png").write_bytes(png_bytes(seed=number))
    return tiles


def table(name: str = "results.csv") -> dict[str, dict[str, str]]:
    with Path(name).open(newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_every_file_becomes_a_row(client: Client, bad_tiles: Path, at_once: int) -> None:
    """Good or bad, here or there; the reasons are counted."""
    summary = run(client, "tiles", at_once=at_once)
    assert (summary.total, summary.succeeded, summary.pending) == (6, 3, 0)
    assert summary.failures == {"INVALID_IMAGE": 1, "UNREADABLE_FILE": 1, "UNSUPPORTED_IMAGE_FORMAT": 1}
    rows = table()
    assert list(rows) == sorted(f"tiles/{path.name}" for path in bad_tiles.iterdir())
    assert [rows[f"tiles/{name}.png"]["status"] for name in ("x0_y0", "broken", "page", "gone")] == [
        "succeeded", "failed", "refused", "unreadable",
    ]  # fmt: skip
    assert rows["tiles/gone.png"]["error_detail"] == "No such file or directory"
    good = rows["tiles/x0_y0.png"]
    assert (good["probability_lung_aca"], good["sharpness"], good["model_version"]) == (
        "0.972",
        "214.0",
        "1.0.0",
    )


def test_a_run_tells_the_server_no_file_name(
    server: ApiServer, client: Client, tiles: Path, at_once: int
) -> None:
    """Names hold what must not leave the machine."""
    run(client, "tiles", at_once=at_once)
    names = {job.spec.custom_id for job in server.jobs}
    assert names == ({None} if at_once == 2 else {"0", "1", "2"})
    assert "tiles" not in str(server.jobs)
    assert "x0_y0" not in str(server.jobs)


@pytest.mark.parametrize("knows", [True, False])
def test_tiles_of_a_run_let_others_pass(server: ApiServer, client: Client, tiles: Path, knows: bool) -> None:
    """They are bulk; a server that knows no priorities gets them without."""

    def refuse() -> None:
        if "priority" in request.args and not knows:
            raise ServerRefusal("Expected only the options mpp. Received: 'priority'")

    server.app.before_request(refuse)
    assert run(client, "tiles").succeeded == 3
    assert {job.spec.priority for job in server.jobs} == {"bulk" if knows else "interactive"}


def test_the_same_call_again_submits_nothing(
    server: ApiServer, client: Client, tiles: Path, at_once: int
) -> None:
    """What is done is read from the journal; what is new or has changed is done."""
    run(client, "tiles", at_once=at_once)
    assert run(client, "tiles", at_once=at_once).done_now == 0
    assert len(server.jobs) == 3
    (tiles / "new.png").write_bytes(png_bytes(seed=5))
    (tiles / "x0_y0.png").write_bytes(png_bytes(seed=6))
    assert run(client, "tiles", at_once=at_once).done_now == 2
    assert len(server.jobs) == 5
    assert len(table()) == 4


@pytest.mark.parametrize("how", ["folder", "list", "link"])
def test_a_file_that_is_gone_keeps_its_row(
    how: str, client: Client, bad_tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was answered, and may be gone by mistake: a folder that is not mounted looks like an empty one."""
    shelf = bad_tiles.parent / "shelf"
    shelf.mkdir()
    for path in [bad_tiles / "x0_y0.png", bad_tiles / "page.png"]:
        path.rename(shelf / path.name)
        path.symlink_to(shelf / path.name)
    listed = [f"tiles/{path.name}\n" for path in bad_tiles.iterdir()]

    def call() -> dict[str, dict[str, str]]:
        monkeypatch.setattr(sys, "stdin", listed)
        run(client, "-" if how == "list" else "tiles")
        return table()

    before = call()
    for path in shelf.iterdir():
        path.unlink()
        if how != "link":
            (bad_tiles / path.name).unlink()
    assert call() == before


def test_a_touched_file_is_the_same_job(server: ApiServer, client: Client, tiles: Path, at_once: int) -> None:
    """Its content says what it is."""
    run(client, "tiles", at_once=at_once)
    os.utime(tiles / "x0_y0.png", (1, 1))
    assert run(client, "tiles", at_once=at_once).done_now == 1
    assert len(server.jobs) == 3


def test_what_failed_can_be_done_again(server: ApiServer, client: Client, tiles: Path, at_once: int) -> None:
    """Only that, and as new jobs."""
    (tiles / "broken.png").write_bytes(png_bytes(width=FAILING_WIDTH))
    assert run(client, "tiles", at_once=at_once).failed == 1
    assert run(client, "tiles", at_once=at_once, retry_failed=True).done_now == 1
    assert len(server.jobs) == 5


def test_a_restart_forgets_everything(server: ApiServer, client: Client, tiles: Path, at_once: int) -> None:
    """New jobs for all files."""
    run(client, "tiles", at_once=at_once)
    assert run(client, "tiles", at_once=at_once, restart=True).done_now == 3
    assert len(server.jobs) == 6


def test_other_options_need_another_journal(client: Client, tiles: Path) -> None:
    """Half of the rows would answer another question."""
    run(client, "tiles", options={"mpp": 0.5})
    with pytest.raises(JournalError, match=r"--restart"):
        run(client, "tiles", options={"mpp": 0.25})


@pytest.mark.parametrize("wrong", [{"mpp": 99}, {"model_version": "9.9.9"}])
def test_options_of_a_run_without_a_result_may_still_change(
    wrong: dict[str, Any], server: ApiServer, client: Client, tiles: Path, at_once: int
) -> None:
    """A slip of the keyboard is no run to go on with."""
    with pytest.raises(CallerError):
        run(client, "tiles", options=wrong, at_once=at_once)
    (tiles / "x0_y0.png").unlink()
    assert run(client, "tiles", options={"mpp": 0.5}, at_once=at_once).total == 2
    assert {job.spec.input.mpp for job in server.jobs} == {0.5}


def test_jobs_of_other_options_are_not_taken_for_those_of_a_run(
    server: ApiServer, client: Client, tiles: Path, at_once: int
) -> None:
    """They were accepted, and their end was not seen: the same keys would find them again, or be refused."""
    run(client, "tiles", options={"mpp": 0.25}, at_once=at_once)
    forget("code", "row")
    assert run(client, "tiles", options={"mpp": 0.5}, at_once=at_once).succeeded == 3
    assert Counter(job.spec.input.mpp for job in server.jobs) == {0.25: 3, 0.5: 3}


def test_a_result_that_is_to_be_looked_at_again_keeps_the_options(client: Client, tiles: Path) -> None:
    """A file that was touched since it was done has one."""
    run(client, "tiles/x0_y0.png", options={"mpp": 0.5})
    forget("code")
    with pytest.raises(JournalError, match=r"--restart"):
        run(client, "tiles", options={"mpp": 0.25})


def test_a_source_that_is_not_there_begins_nothing(client: Client, tiles: Path) -> None:
    """And ends nothing: a journal that is there stays, whatever was to be done with it."""
    with pytest.raises(ValueError, match="nowhere"):
        run(client, "tiles", "nowhere", options={"mpp": 0.5})
    assert not Path("results.csv.journal").exists()
    run(client, "tiles")
    with pytest.raises(ValueError, match=r"\*\.gif"):
        run(client, "tiles", "tiles/*.gif", restart=True)
    assert run(client, "tiles").done_now == 0


def test_one_run_at_a_time(client: Client, tiles: Path) -> None:
    """A second one would submit the same files."""
    outcomes = []

    class Intruder:
        def show(self, summary: Summary, is_last: bool = False) -> None:
            with pytest.raises(JournalError, match="alone"):
                run(client, "tiles")
            outcomes.append(summary)

    run(client, "tiles", progress=Intruder())
    assert outcomes
    run(client, "tiles")


def test_a_restart_does_not_take_the_journal_from_a_run(client: Client, tiles: Path) -> None:
    """What that one has done stays kept; and what is no journal is not deleted for being in the way."""

    class Intruder:
        def show(self, summary: Summary, is_last: bool = False) -> None:
            with pytest.raises(JournalError, match="alone"):
                run(client, "tiles", restart=True)

    run(client, "tiles", progress=Intruder())
    assert run(client, "tiles").done_now == 0
    Path("notes.txt").write_text("my notes, which are long enough to be read as a header" * 20)
    with pytest.raises(JournalError, match="Expected a journal"):
        run(client, "tiles", journal=Path("notes.txt"), restart=True)
    assert Path("notes.txt").read_text().startswith("my notes")


def test_a_file_that_is_no_journal_is_left_alone(client: Client, tiles: Path) -> None:
    """It may be anything."""
    Path("results.csv.journal").write_text("my notes, which are long enough to be read as a header" * 20)
    with pytest.raises(JournalError, match="Expected a journal"):
        run(client, "tiles")
    assert Path("results.csv.journal").read_text().startswith("my notes")


@pytest.mark.parametrize(
    ("options", "kind"), [({"mpp": 99}, InvalidRequest), ({"model_version": "9.9.9"}, UnknownModelVersion)]
)
def test_what_is_wrong_for_every_file_ends_the_run(
    options: dict[str, Any], kind: type[Exception], client: Client, tiles: Path, at_once: int
) -> None:
    """It makes no row, and no file of results."""
    with pytest.raises(kind):
        run(client, "tiles", options=options, at_once=at_once)
    assert not Path("results.csv").exists()


def test_a_full_queue_is_waited_for(tiles: Path, tmp_path: Path, at_once: int) -> None:
    """Longer than the client's patience, if it must be: each file gets its result."""
    (tmp_path / "full").mkdir()

    def soon(answer: Response) -> Response:
        if answer.status_code == 429:
            answer.headers["Retry-After"] = "0"
        return answer

    with ApiServer(tmp_path / "full", max_open_jobs=1) as server, Client(server.url, patience=0) as client:
        server.app.after_request(soon)
        server.is_working.clear()
        client.submit(png_bytes())
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(run, client, "tiles", at_once=at_once)
            assert wait_until(lambda: server.refused >= 2, 20)
            server.is_working.set()
            assert running.result(30).succeeded == 3


def test_a_result_that_the_server_has_dropped_is_made_again(
    server: ApiServer, client: Client, tiles: Path, at_once: int
) -> None:
    """The journal was lost with its last seconds, and the run goes on when the result is gone."""
    run(client, "tiles", at_once=at_once)
    forget("code", "row")
    server.ahead_ms = int(server.settings.result_retention_seconds * 1000) + 1000
    assert run(client, "tiles", at_once=at_once).succeeded == 3
    assert len(server.jobs) == 6


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


def test_a_name_that_is_no_text_is_a_file_like_any_other(client: Client, tiles: Path) -> None:
    """Its bytes are shown as escapes."""
    Path(os.fsdecode(os.fsencode(str(tiles)) + b"/\xe4.png")).write_bytes(png_bytes())
    assert run(client, "tiles", outs=("results.csv", "results.ndjson")).succeeded == 4
    assert "tiles/\\xe4.png" in table()


@pytest.mark.parametrize("places", ["pattern", "table"])
def test_a_name_that_is_no_text_has_its_place(places: str, client: Client, tiles: Path) -> None:
    """It is found by its name as the results show it, and costs no other tile its place."""
    Path(os.fsdecode(os.fsencode(str(tiles)) + b"/x9_y9_\xe4.png")).write_bytes(png_bytes())
    Path("places.csv").write_text("file,x,y\nx9_y9_\\xe4.png,9,9\nx0_y0.png,0,0\n")
    of_table = places == "table"
    finder = Manifest(Path("places.csv")) if of_table else NamePattern(r"x(?P<x>\d+)_y(?P<y>\d+)")
    run(client, "tiles", outs=("r.geojson",), layout=Layout(finder))
    found = json.loads(Path("r.geojson").read_text())["features"]
    assert len(found) == (2 if of_table else 4)
    assert "tiles/x9_y9_\\xe4.png" in [one["properties"]["name"] for one in found]


def test_files_come_from_folders_patterns_and_lists(bad_tiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden files and other suffixes are left out of a folder, and nothing that is named is."""
    (bad_tiles / ".hidden.png").touch()
    (bad_tiles / "notes.txt").touch()
    (bad_tiles / "deep").mkdir()
    (bad_tiles / "deep" / "A.JPEG").touch()
    (bad_tiles / "loop").symlink_to(bad_tiles)
    assert len(list(scan(["tiles"]))) == 7
    (bad_tiles / "loop").unlink()
    assert [found.path for found in scan(["tiles/x0*.png", "tiles/**/*.JPEG"])] == [
        "tiles/x0_y0.png", "tiles/deep/A.JPEG",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "stdin", ["tiles/notes.txt\n", "\n", "nowhere.png"])
    assert [found.path for found in scan(["-"])] == ["tiles/notes.txt", "nowhere.png"]
    with pytest.raises(ValueError, match="Received: 'nowhere'"):
        list(scan(["nowhere"]))
    with pytest.raises(ValueError, match=r"Received: 'tiles/\*.gif'"):
        list(scan(["tiles/*.gif"]))


def test_a_folder_that_cannot_be_read_is_a_row(tiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in it is not known, which must not go unnoticed."""
    (tiles / "locked").mkdir()
    look = os.scandir

    def refuse(folder: str) -> Any:
        if folder.endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return look(folder)

    # Whoever runs the tests may be allowed to read everything.
    monkeypatch.setattr(os, "scandir", refuse)
    assert "tiles/locked" in [found.path for found in scan(["tiles"])]


def test_a_folder_that_can_be_read_again_has_no_row(
    client: Client, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files have; so that what failed can be done again without doing all of it."""
    (tiles / "locked").mkdir()
    (tiles / "locked" / "a.png").write_bytes(png_bytes())
    (tiles / "gone.png").symlink_to(tiles / "nowhere.png")
    look = os.scandir

    def refuse(folder: str) -> Any:
        if folder.endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return look(folder)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        assert run(client, "tiles").failures == {"UNREADABLE_FILE": 2}
    again = run(client, "tiles", retry_failed=True)
    assert (again.succeeded, again.failed, again.done_now) == (4, 1, 2)
    assert {"tiles/locked", "tiles/locked/a.png", "tiles/gone.png"} & set(table()) == {
        "tiles/locked/a.png",
        "tiles/gone.png",
    }


def test_a_pipe_is_not_read(client: Client, tiles: Path) -> None:
    """It would hold the run up for ever."""
    os.mkfifo(tiles / "pipe.png")
    assert run(client, "tiles").failures == {"UNREADABLE_FILE": 1}


def test_every_export_says_what_it_is_not_for(client: Client, bad_tiles: Path) -> None:
    """A column, a member of each line, a member of the whole and of each tile."""
    layout = Layout(NamePattern(r"x(?P<x>\d+)_y(?P<y>\d+)"))
    run(client, "tiles", outs=("r.csv", "r.ndjson", "r.geojson"), layout=layout)
    notice = "Research use only, not for diagnostic use."
    assert {row["notice"] for row in table("r.csv").values()} == {notice}
    lines = [json.loads(line) for line in Path("r.ndjson").read_text().splitlines()]
    assert {line["notice"] for line in lines} == {notice}
    assert len(lines) == 6
    collection = json.loads(Path("r.geojson").read_text())
    assert collection["notice"] == notice
    assert {one["properties"]["metadata"]["notice"] for one in collection["features"]} == {notice}
    assert len(collection["features"]) + len(collection["unplaced"]) == 6


def test_a_spreadsheet_runs_no_formula_out_of_a_name(client: Client, tiles: Path) -> None:
    """A cell that begins like one is quoted."""
    Path("=HYPERLINK(1).png").write_bytes(png_bytes())
    run(client, "=HYPERLINK(1).png")
    assert list(table()) == ["'=HYPERLINK(1).png"]


def test_results_are_whole_or_not_there(client: Client, tiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle leaves the file of the last run, and nothing beside it."""
    run(client, "tiles")
    whole = Path("results.csv").read_bytes()
    (tiles / "new.png").write_bytes(png_bytes())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            run(client, "tiles")
    assert Path("results.csv").read_bytes() == whole
    assert not list(Path().glob(".results*"))
    assert run(client, "tiles").done_now == 0


def test_a_link_to_a_file_of_results_stays_one(client: Client, tiles: Path) -> None:
    """What it leads to is written, as on the large disk where there is room for it."""
    Path("large disk").mkdir()
    Path("results.csv").symlink_to("large disk/results.csv")
    run(client, "tiles")
    assert Path("results.csv").is_symlink()
    assert len(table("large disk/results.csv")) == 3
    assert [path.name for path in Path("large disk").iterdir()] == ["results.csv"]


@pytest.mark.parametrize(
    ("outs", "text"),
    [
        (("results.xlsx",), "Expected a file ending in"),
        (("results.geojson",), "--coordinates"),
        (("nowhere/results.csv",), "Expected a folder"),
        (("results.csv", "folder.csv"), "Received the folder"),
        (("results.csv", "locked/results.csv"), "Expected a folder that can be written to. Received: locked"),
    ],
)
def test_a_run_that_cannot_end_well_does_not_begin(
    outs: tuple[str, ...],
    text: str,
    server: ApiServer,
    client: Client,
    tiles: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is submitted for a file that could not be written."""
    Path("folder.csv").mkdir()
    Path("locked").mkdir()
    # Whoever runs the tests may be allowed to write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "locked")
    with pytest.raises(ValueError, match=text):
        run(client, "tiles", outs=outs)
    assert server.jobs == []


def test_a_journal_is_no_file_of_results(server: ApiServer, client: Client, tiles: Path) -> None:
    """These would take its place at the end, and the next call would begin anew."""
    Path("linked.csv").symlink_to("results.csv")
    for journal in ("results.csv", "tiles/../results.csv", "linked.csv"):
        with pytest.raises(ValueError, match="Expected a journal apart from the results"):
            run(client, "tiles", journal=Path(journal))
    assert server.jobs == []
    assert not Path("results.csv").exists()


def test_nothing_at_once_is_refused(client: Client, tiles: Path) -> None:
    """It would do nothing, and say nothing of it."""
    with pytest.raises(ValueError, match="1 or more"):
        run(client, "tiles", at_once=0)
    with pytest.raises(ValueError, match="1 or more"):
        list(client.map([tiles / "x0_y0.png"], concurrency=0))


def test_heat_maps_are_not_kept_among_the_tiles(server: ApiServer, client: Client, tiles: Path) -> None:
    """The next call would take them for tiles."""
    for folder in (tiles, tiles / "maps", Path("elsewhere/../tiles/maps")):
        with pytest.raises(ValueError, match="heat maps outside of tiles"):
            run(client, "tile.png", "tiles", options={"explain": True}, heatmaps=folder)
    assert server.jobs == []


def test_a_folder_without_a_tile_is_said_to_have_none(
    client: Client, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is of other files, or not mounted; an empty list is nothing to do."""
    Path("slides").mkdir()
    Path("slides/slide.svs").touch()
    with pytest.raises(ValueError, match=r"Expected files ending in \.jpg.* in slides\. Received none"):
        run(client, "slides")
    assert not Path("results.csv").exists()
    monkeypatch.setattr(sys, "stdin", [])
    assert run(client, "-").total == 0
    run(client, "tiles")
    assert run(client, "slides").total == 3


def test_a_journal_that_cannot_be_opened_is_named(client: Client, tiles: Path) -> None:
    """With what is wrong about it."""
    Path("folder").mkdir()
    with pytest.raises(JournalError, match="folder"):
        run(client, "tiles", journal=Path("folder"))
    with pytest.raises(ValueError, match="Expected a folder that exists"):
        run(client, "tiles", journal=Path("nowhere/journal"))


def test_a_disk_that_is_full_is_said_to_be(tmp_path: Path) -> None:
    """And which file it was; what was kept before stays."""
    path, limits = tmp_path / "journal", resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(path, {}) as journal:
        journal.add([Found("a.png", "1:1")])
    journal = Journal(path, {})
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(JournalError, match=r"Expected to write to .*journal\. Received: disk"), journal:
            journal.add(Found(f"{number:0200}", "1:1") for number in range(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with Journal(path, {}) as journal:
        assert journal.counts() == {None: 1}


def test_a_tile_lies_where_its_name_or_the_table_says(client: Client, bad_tiles: Path) -> None:
    """As a closed polygon in pixels of the slide, y downwards."""
    Path("places.csv").write_text(
        "file,x,y,w,h\nx0_y0.png,10,20,,\ntiles/broken.png,100,200,30,40\nother.png,1,1,1,1\n"
    )
    run(client, "tiles", outs=("r.geojson",), layout=Layout(Manifest(Path("places.csv")), downsample=4))
    features = {
        one["properties"]["name"]: one for one in json.loads(Path("r.geojson").read_text())["features"]
    }
    assert set(features) == {"tiles/x0_y0.png", "tiles/broken.png"}
    assert features["tiles/x0_y0.png"]["geometry"] == {
        "type": "Polygon",
        "coordinates": [[[10, 20], [266, 20], [266, 212], [10, 212], [10, 20]]],
    }
    assert features["tiles/broken.png"]["geometry"]["coordinates"][0][2] == [130, 240]


def test_qupath_finds_what_it_reads(client: Client, tiles: Path) -> None:
    """Object type, class with colour, measurements as numbers, and a UUID of the object's own."""
    layout = Layout(NamePattern(r"x(?P<x>\d+)_y(?P<y>\d+)"))
    run(client, "tiles", outs=("r.geojson",), layout=layout)
    first, *others = json.loads(Path("r.geojson").read_text())["features"]
    assert first["type"] == "Feature"
    properties = first["properties"]
    assert properties["objectType"] == "tile"
    assert properties["classification"] == {"name": "lung_aca", "color": [213, 94, 0]}
    assert properties["measurements"]["probability lung_scc"] == 0.017
    assert properties["measurements"]["confidence"] == 0.972
    assert properties["measurements"]["gate sharpness"] == 214.0
    assert all(isinstance(value, float) for value in properties["measurements"].values())
    assert all(isinstance(value, str) for value in properties["metadata"].values())
    assert len({one["id"] for one in [first, *others]}) == 3


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"status": "succeeded", "result": {"class": "lung_n", "verdict": "classified"}}, "lung_n"),
        ({"status": "succeeded", "result": {"class": "lung_n", "verdict": "indeterminate"}}, "indeterminate"),
        ({"status": "succeeded", "result": {"class": None, "verdict": "rejected"}}, "rejected"),
        ({"status": "failed", "result": None, "error": {"code": "POISON", "detail": "x"}}, "failed"),
    ],
)
def test_a_tile_has_a_class_only_where_the_model_is_sure(row: dict[str, Any], name: str) -> None:
    """Background never gets one."""
    found = feature("x1_y2.png", row, Layout(NamePattern(r"x(?P<x>\d+)_y(?P<y>\d+)"), tile_size=(8, 8)))
    assert found is not None
    assert found["properties"]["classification"]["name"] == name


def test_the_size_of_an_image_counts_before_the_one_that_is_stated() -> None:
    """A tile at the slide's border is smaller; what was never looked at has no other size."""
    layout = Layout(NamePattern(r"x(?P<x>\d+)_y(?P<y>\d+)"), tile_size=(256, 256))
    border = feature("x0_y0.png", {"input": {"width": 100, "height": 256}}, layout)
    unread = feature("x0_y0.png", {"status": "unreadable"}, layout)
    assert border is not None
    assert unread is not None
    assert border["geometry"]["coordinates"][0][2] == [100, 256]
    assert unread["geometry"]["coordinates"][0][2] == [256, 256]


@pytest.mark.parametrize(
    "text",
    [
        "file,x\na,1\n",
        "file,x,y\na,1,north\n",
        "file,x,y\na,nan,1\n",
        "file,x,y,w,h\na,1,1,inf,1\n",
        "x,y,file\n1,1\n",
        'file,x,y\n"a,1,1\n' + "b,1,1\n" * 30_000,
    ],
)
def test_a_table_of_places_is_checked(text: str, tmp_path: Path) -> None:
    """Before anything is submitted."""
    path = tmp_path / "places.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match="Expected"):
        Manifest(path)


def test_a_table_of_places_in_another_encoding_is_named(tmp_path: Path) -> None:
    """As a spreadsheet's "Unicode text" is."""
    path = tmp_path / "places.csv"
    path.write_text("file,x,y\na,1,1\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"Expected a table in \S+places.csv. Received: 'utf-8' codec"):
        Manifest(path)


@pytest.mark.parametrize("pattern", ["x(", r"(?P<x>\d+)"])
def test_a_pattern_of_places_is_checked(pattern: str) -> None:
    """So is what finds them in a name."""
    with pytest.raises(ValueError, match="Expected"):
        NamePattern(pattern)


def test_an_error_in_a_thread_ends_the_run() -> None:
    """It is raised where the run is waited for, and nothing more is taken."""

    def fail(number: int) -> int:
        if number == 7:
            raise KeyError(number)
        return number

    taken = []
    with pytest.raises(KeyError):
        taken.extend(run_over(fail, range(1000), 3))
    assert len(taken) < 20


def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    """Ten thousand files are noted, listed, recorded and written with less than two hundred bytes each."""
    number = 10_000
    row = {"status": "succeeded", "result": {"class": "lung_n", "probabilities": {"lung_n": 1.0}}}
    tracemalloc.start()
    try:
        with Journal(tmp_path / "journal", {}) as journal:
            journal.add(
                Found(f"tiles/a rather long name of a slide/x{at}_y0.png", "1:1") for at in range(number)
            )
            for parcel in journal.parcels(32, 1_000_000):
                for item in parcel:
                    journal.record(Entry(item.path, "", row))
            with written_whole(tmp_path / "results.csv") as file:
                write_csv(file, journal.rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len((tmp_path / "results.csv").read_text().splitlines()) == number + 1
    assert peak < 200 * number
