"""A run over many files: one row for each, whatever it is, and no job twice."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Response, request
from histoqueue import Client, InvalidRequest, UnknownModelVersion
from histoqueue._pool import run_over

from ops.processes import wait_until
from shared.errors import InvalidRequest as ServerRefusal
from tests.api_server import FAILING_WIDTH, ApiServer
from tests.factories import png_bytes
from tests.unit.client.conftest import forget, run, table


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
    assert (good["width"], good["height"]) == ("64", "48")
    assert (good["probability_lung_aca"], good["sharpness"], good["model_version"]) == (
        "0.972",
        "214.0",
        "1.0.0",
    )


def test_a_folder_may_have_several_files_of_results(client: Client, tiles: Path) -> None:
    """The journal lies beside the first."""
    assert client.batch("tiles", out=["r.csv", Path("r.ndjson")], concurrency=1).succeeded == 3
    assert len(table("r.csv")) == len(Path("r.ndjson").read_text().splitlines()) == 3
    assert Path("r.csv.journal").is_file()


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


def test_nothing_at_once_is_refused(client: Client, tiles: Path) -> None:
    """It would do nothing, and say nothing of it."""
    with pytest.raises(ValueError, match="1 or more"):
        run(client, "tiles", at_once=0)
    with pytest.raises(ValueError, match="1 or more"):
        list(client.map([tiles / "x0_y0.png"], concurrency=0))


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
