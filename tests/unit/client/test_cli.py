"""The command: data on standard output, the rest on standard error, and a status that says how it went."""

import hashlib
import io
import json
import sys
from pathlib import Path

import pytest
from flask import Response, request
from histoqueue import Client
from histoqueue._cli import main

from tests import api_server
from tests.api_server import HEATMAP, ApiServer

NOTICE = "Research use only, not for diagnostic use."


Output = pytest.CaptureFixture[str]


def test_predict_shows_a_table(server: ApiServer, tiles: Path, capsys: Output) -> None:
    """In the order of the files, with what it is not for."""
    assert main(["predict", "tiles/x64_y48.png", "tile.png"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "FILE               CLASS     CONFIDENCE  VERDICT",
        "tiles/x64_y48.png  lung_aca  0.972       classified",
        "tile.png           lung_aca  0.972       classified",
        NOTICE,
    ]
    assert said.err == ""


def test_predict_tells_each_failure(server: ApiServer, bad_tiles: Path, capsys: Output) -> None:
    """The others are classified; the status says that some were not."""
    assert main(["predict", "tile.png", "tiles/gone.png", "tiles/page.png", "tiles/broken.png"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "lung_aca" in lines[1]
    assert "UNREADABLE_FILE: No such file or directory" in lines[2]
    assert "UNSUPPORTED_IMAGE_FORMAT: Expected a JPEG" in lines[3]
    assert "INVALID_IMAGE: Expected a JPEG. It breaks off." in lines[4]


def test_predict_speaks_json(server: ApiServer, tiles: Path, capsys: Output) -> None:
    """One object a line."""
    assert main(["predict", "--json", "tile.png", "tiles/x0_y0.png"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in lines] == ["tile.png", "tiles/x0_y0.png"]
    assert {line["result"]["class"] for line in lines} == {"lung_aca"}
    assert {line["notice"] for line in lines} == {NOTICE}


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_what_was_answered_is_shown_whatever_ends_predict(
    more: list[str], server: ApiServer, tiles: Path, capsys: Output
) -> None:
    """Here the key is withdrawn after the first image; where none was answered there is no table."""
    answered = []

    def withdraw() -> Response | None:
        if answered:
            return Response("no", status=401)
        answered.append(request.path)
        return None

    server.app.before_request(withdraw)
    arguments = ["predict", "tile.png", "tiles/x0_y0.png", "--concurrency", "1", *more]
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert "tile.png" in said.out
    assert "lung_aca" in said.out
    assert "x0_y0" not in said.out
    assert "401" in said.err
    assert main(arguments) == 2
    assert capsys.readouterr().out == ""


def test_a_heat_map_that_is_lost_costs_no_answer(server: ApiServer, tiles: Path, capsys: Output) -> None:
    """The class stays, and that the map is missing is told."""
    lost = {"code": "NO_HEATMAP", "status": 404, "detail": "Expected a job whose image is still kept."}

    def lose() -> Response | None:
        if not request.path.endswith(".png"):
            return None
        return Response(json.dumps(lost), status=404, content_type="application/problem+json")

    server.app.before_request(lose)
    assert main(["predict", "tile.png", "--explain", "maps"]) == 1
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row == ["tile.png", "lung_aca", "0.972", "NO_HEATMAP", "classified"]
    assert main(["submit", "tile.png", "--explain", "maps", "--out", "r.ndjson"]) == 1
    assert "1 failed (NO_HEATMAP 1)" in capsys.readouterr().err
    told = json.loads(Path("r.ndjson").read_text())
    assert (told["status"], told["result"]["class"], told["error"]["code"]) == (
        "succeeded",
        "lung_aca",
        "NO_HEATMAP",
    )


def test_submit_writes_files_and_says_nothing_but_progress(
    server: ApiServer, bad_tiles: Path, capsys: Output
) -> None:
    """Standard output stays empty; the last line of progress counts the failures by reason."""
    arguments = ["submit", "tiles", "--out", "r.csv", "--out", "r.geojson", "--concurrency", "2"]
    places = ["--coordinates", r"x(?P<x>\d+)_y(?P<y>\d+)"]
    assert main([*arguments, *places]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "6 of 6 files" in said.err
    assert "3 failed (INVALID_IMAGE 1, UNREADABLE_FILE 1, UNSUPPORTED_IMAGE_FORMAT 1)" in said.err
    assert len(Path("r.csv").read_text().splitlines()) == 7
    assert len(json.loads(Path("r.geojson").read_text())["features"]) == 3
    assert main([*arguments, *places, "--quiet"]) == 1
    assert capsys.readouterr() == ("", "")


def test_submit_takes_a_list(server: ApiServer, tiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From standard input, one path a line."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("tile.png\ntiles/x0_y0.png\n"))
    assert main(["submit", "-", "--out", "r.ndjson", "--quiet"]) == 0
    files = [json.loads(line)["file"] for line in Path("r.ndjson").read_text().splitlines()]
    assert files == ["tile.png", "tiles/x0_y0.png"]


def test_a_job_is_shown_watched_and_canceled(server: ApiServer, capsys: Output, tiles: Path) -> None:
    """By its id or its address."""
    server.is_working.clear()
    assert main(["submit", "tiles", "--out", "nowhere/r.csv"]) == 2
    with Client() as client:
        job, other = client.submit("tile.png"), client.submit("tiles/x0_y0.png")
    capsys.readouterr()
    assert main(["status", job.id]) == 0
    assert "status      queued" in capsys.readouterr().out
    assert main(["cancel", f"{server.url}/result/{other.id}"]) == 0
    assert "status      canceled" in capsys.readouterr().out
    assert main(["status", other.id]) == 1
    server.is_working.set()
    assert main(["watch", job.id]) == 0
    said = capsys.readouterr()
    assert "class       lung_aca" in said.out
    assert NOTICE in said.out
    assert main(["status", "--json", job.id]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["class"] == "lung_aca"
    assert main(["cancel", job.id]) == 1
    assert "JOB_ALREADY_FINAL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["submit", "nowhere", "--out", "r.csv"], 2, "Expected a folder, a file, a pattern"),
        (["submit", "tiles", "--out", "r.xlsx"], 2, "Expected a file ending in"),
        (["submit", "tiles", "--out", "r.csv", "--mpp", "99"], 2, "INVALID_REQUEST"),
        (["submit", "tiles", "--out", "r.csv", "--manifest", "nowhere.csv"], 2, "nowhere.csv"),
        (["submit", "tiles", "--out", "r.csv", "--server", "lab"], 2, "Expected an address"),
        (["predict", "tile.png", "tiles/x0_y0.png", "--mpp", "99"], 2, "INVALID_REQUEST"),
        (["predict", "tile.png", "--model-version", "9.9.9"], 2, "UNKNOWN_MODEL_VERSION"),
        (["status", "0192f0c4-5b1e-4c1b-9d43-2f6f0f6f8a11"], 2, "JOB_NOT_FOUND"),
        (["predict", "tile.png", "--server", "http://127.0.0.1:9", "--patience", "0"], 3, "Received none"),
        (["doctor", "--server", "http://127.0.0.1:9"], 3, ""),
    ],
)
def test_each_trouble_has_its_status_and_one_line(
    arguments: list[str], status: int, text: str, server: ApiServer, tiles: Path, capsys: Output
) -> None:
    """2 where the call must change, 3 where the server is away or cannot; never a traceback."""
    assert main(arguments) == status
    said = capsys.readouterr().err
    assert text in said
    assert "Traceback" not in said


def test_results_do_not_take_the_place_of_the_table_of_places(
    server: ApiServer, tiles: Path, capsys: Output
) -> None:
    """It is the user's, and may have no copy."""
    table = "file,x,y\nx0_y0.png,0,0\n"
    Path("places.csv").write_text(table)
    assert main(["submit", "tiles", "--manifest", "places.csv", "--out", "tiles/../places.csv"]) == 2
    assert "Expected results in another file than the table of places" in capsys.readouterr().err
    assert (Path("places.csv").read_text(), server.jobs) == (table, [])


@pytest.mark.parametrize("key", ["secret\n", "secret "])
def test_a_key_with_a_line_end_is_the_key(
    key: str, server: ApiServer, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `$(cat key)` and a `.env` file may leave one."""
    monkeypatch.setenv("HISTOQUEUE_API_KEY", key)
    assert main(["predict", "tile.png", "--patience", "0"]) == 0


def test_a_key_that_cannot_be_sent_is_wrong_usage(
    server: ApiServer, tiles: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """It is told at once, and does not appear."""
    monkeypatch.setenv("HISTOQUEUE_API_KEY", "s\xe9cret")
    assert main(["predict", "tile.png"]) == 2
    said = capsys.readouterr().err
    assert "Expected an API key" in said
    assert "cret" not in said


@pytest.mark.parametrize("command", [["predict", "tile.png"], ["submit", "tiles", "--out", "r.csv"]])
def test_an_address_of_something_else_is_wrong_usage(
    command: list[str], server: ApiServer, tiles: Path, capsys: Output
) -> None:
    """No file is to blame, so none has a row."""
    assert main([*command, "--server", f"{server.url}/api"]) == 2
    assert "NOT_FOUND" in capsys.readouterr().err
    assert not Path("r.csv").exists()


@pytest.mark.parametrize("command", [["predict", "tile.png"], ["submit", "tiles", "--out", "r.csv"]])
@pytest.mark.parametrize("status", [200, 400, 407, 422, 501, 511])
def test_what_answers_in_place_of_the_server_is_told_in_one_line(
    status: int, command: list[str], server: ApiServer, tiles: Path, capsys: Output
) -> None:
    """A login page, a port of https, another service's /predict: no file is to blame, and none has a row."""
    page = "<!doctype html>\n<title>Log in</title>"
    pages = [Response(page, status=status, content_type="text/html")]
    server.app.before_request(lambda: pages[0] if pages else None)
    assert main([*command, "--quiet"]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert f"status {status}, text/html, " in line
    assert "Log in" in line
    assert not Path("r.csv").exists()
    pages.clear()
    assert main([*command, "--quiet", "--mpp", "0.5"]) == 0


@pytest.mark.parametrize(
    "arguments",
    [[], ["submit"], ["submit", "x"], ["predict"], ["predict", "x", "--concurrency", "0"], ["fly"]],
)
def test_wrong_usage_is_status_2(arguments: list[str], capsys: Output) -> None:
    """And says what is right."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: histoqueue" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--patience", "soon", "seconds, 0 or more"),
        ("--patience", "nan", "seconds, 0 or more"),
        ("--patience", "-1", "seconds, 0 or more"),
        ("--concurrency", "many", "1 to 1000"),
        ("--concurrency", "1001", "1 to 1000"),
        ("--downsample", "x", "a number over 0"),
        ("--tile-size", "nan", "a number over 0"),
        ("--mpp", "half", "a number"),
        ("--mpp", "nan", "a number"),
        ("--expires-in", "1h", "a number"),
    ],
)
def test_a_value_that_is_none_is_told_in_words(
    option: str, value: str, expected: str, capsys: Output
) -> None:
    """What was expected, and what came."""
    with pytest.raises(SystemExit) as caught:
        main(["submit", "tiles", "--out", "r.csv", f"{option}={value}"])
    assert caught.value.code == 2
    assert f"argument {option}: expected {expected}, received {value}" in capsys.readouterr().err


def test_what_a_rejected_image_has_not_is_a_dash(
    server: ApiServer, tiles: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """As in the table."""
    rejected = {**api_server.RESULT, "class": None, "confidence": None, "verdict": "rejected"}
    monkeypatch.setattr(api_server, "RESULT", rejected)
    with Client() as client:
        job = client.submit("tile.png", wait=10)
    assert main(["status", job.id]) == 0
    said = capsys.readouterr().out
    assert "class       -\nconfidence  -\n" in said
    assert "None" not in said


def test_models_are_listed(server: ApiServer, capsys: Output) -> None:
    """With a mark on the live one."""
    assert main(["models"]) == 0
    assert capsys.readouterr().out.splitlines() == ["VERSION  LIVE", "1.0.0    live", NOTICE]


def test_a_heat_map_is_kept_by_its_job(server: ApiServer, tiles: Path, capsys: Output) -> None:
    """Whether one image was sent or a folder; an image that failed has none."""
    assert main(["submit", "tiles", "--out", "r.ndjson", "--explain", "maps", "--quiet"]) == 0
    jobs = {json.loads(line)["job_id"] for line in Path("r.ndjson").read_text().splitlines()}
    assert {path.stem for path in Path("maps").iterdir()} == jobs
    assert main(["predict", "tile.png", "--explain", "other"]) == 0
    assert [path.read_bytes() for path in Path("other").iterdir()] == [HEATMAP]


def test_predict_tells_which_heat_map_is_of_which_file(
    server: ApiServer, bad_tiles: Path, capsys: Output
) -> None:
    """In the table, where each has its path; an object has its job, whose id is the map's name."""
    files = ["tile.png", "tiles/page.png", "tiles/x0_y0.png"]
    assert main(["predict", *files, "--explain", "maps"]) == 1
    head, *rows, _ = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert head[3] == "HEATMAP"
    with Client() as client:
        sums = {row[0]: client.get(Path(row[3]).stem).record.input for row in (rows[0], rows[2])}
    for name, told in sums.items():
        assert told is not None
        assert told.sha256 == hashlib.sha256(Path(name).read_bytes()).hexdigest()
    assert rows[1][3] == "-"


def test_an_image_without_a_class_has_no_heat_map_and_is_no_failure(
    server: ApiServer, tiles: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """It was rejected by a gate, which is an answer."""
    monkeypatch.setattr(api_server, "RESULT", {**api_server.RESULT, "class": None, "verdict": "rejected"})
    assert main(["predict", "tile.png", "--explain", "maps"]) == 0
    assert list(Path("maps").iterdir()) == []


def test_a_key_that_is_withdrawn_costs_nothing_that_is_done(
    server: ApiServer, tiles: Path, capsys: Output
) -> None:
    """There is no file of results yet: so where they are is told, as after Ctrl-C."""
    answered = []

    def withdraw(answer: Response) -> Response:
        if answered:
            return Response("no", status=401)
        answered.append(request.path)
        return answer

    server.app.after_request(withdraw)
    assert main(["submit", "tile.png", "tiles", "--out", "r.csv", "--concurrency", "1"]) == 2
    said = capsys.readouterr().err
    assert "1 of 4 files" in said
    assert "the same command goes on" in said
    assert "401" in said


@pytest.mark.parametrize("wrong", [["tiles", "--mpp", "99"], ["nowhere"]])
def test_a_slip_leaves_nothing_to_go_on_with(
    wrong: list[str], server: ApiServer, tiles: Path, capsys: Output
) -> None:
    """The same command would fail again, so that is not advised; the right one is not refused."""
    assert main(["submit", *wrong, "--out", "r.csv"]) == 2
    assert "the same command goes on" not in capsys.readouterr().err
    assert main(["submit", "tiles", "--mpp", "0.5", "--out", "r.csv"]) == 0


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://lab:port"])
def test_a_proxy_that_cannot_be_used_is_wrong_usage(
    proxy: str, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """One needs a package that is not there, one is no address; both are of the environment."""
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", proxy)
    assert main(["models", "--server", "http://lab.example", "--patience", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
