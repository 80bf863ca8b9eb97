"""The command: data on standard output, the rest on standard error, and a status that says how it went."""

import email.utils
import fcntl
import hashlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import termios
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Response, request
from histoqueue import Client, _doctor, _http
from histoqueue._bulk import Summary
from histoqueue._cli import main
from histoqueue._progress import ProgressLine, describe

from ops.processes import wait_until
from tests import api_server
from tests.api_server import HEATMAP, ApiServer
from tests.factories import png_bytes

ROOT = Path(__file__).resolve().parents[3]
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


def test_doctor_examines_everything(server: ApiServer, capsys: Output) -> None:
    """Both ends, what lies between, and what the server admits."""
    assert main(["doctor"]) == 0
    lines = {line[4:13].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert list(lines) == ["client", "library", "server", "clock", "ready", "version", "model", "limits"]
    assert all(line.startswith("ok") for line in lines.values())
    assert lines["model"] == "ok  model    1.0.0"
    assert lines["limits"] == "ok  limits   0 of at most 500 jobs open, 1 workers"
    assert lines["version"].startswith("ok  version  server ")


def test_doctor_takes_no_page_for_the_server(server: ApiServer, capsys: Output) -> None:
    """It says what answers, and looks no further."""
    server.app.before_request(lambda: Response("<title>Log in</title>", content_type="text/html"))
    assert main(["doctor"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert "Received: status 200, text/html, '<title>Log in</title>'" in lines[-1]
    assert [line[:3].strip() for line in lines] == ["ok", "ok", "BAD"]


def test_doctor_shows_no_password(capsys: Output) -> None:
    """An address may hold one, for a proxy in front of the server; what doctor says is sent to others."""
    assert main(["doctor", "--server", "http://lab:hunter2@127.0.0.1:9/tiles"]) == 3
    shown = capsys.readouterr()
    assert "http://127.0.0.1:9/tiles" in shown.out
    assert "hunter2" not in shown.out + shown.err


def test_doctor_finds_a_server_without_a_worker(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """In the server's words, and the status tells that all is not well."""
    monkeypatch.setattr(server.services.workers, "live", list)
    assert main(["doctor", "--json"]) == 3
    found = {line["what"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert found["ready"]["is_well"] is False
    assert "worker" in found["ready"]["text"]


@pytest.mark.parametrize(
    ("seconds", "is_well", "text"), [(0, True, ""), (3600, False, "behind"), (-3600, False, "ahead of")]
)
def test_doctor_compares_the_clocks(seconds: int, is_well: bool, text: str) -> None:
    """Retention and dates are told by the server's."""
    date = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
    finding = _doctor._clock(_http.Answer(200, {"Date": date}, b""))
    assert finding.is_well is is_well
    assert text in finding.text


def test_doctor_says_that_no_version_is_live(server: ApiServer, capsys: Output) -> None:
    """In a word, not in one of Python's."""
    empty = json.dumps({"live": None, "versions": []})
    server.app.before_request(lambda: Response(empty) if request.path == "/models" else None)
    main(["doctor"])
    assert "model    none live" in capsys.readouterr().out


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


@pytest.mark.parametrize("command", ["predict tile.png", "predict --json tile.png", "models"])
def test_a_reader_that_has_enough_ends_it_quietly(command: str, server: ApiServer, tiles: Path) -> None:
    """As in `histoqueue predict ... | head -1`, however much of it was written when the reader left."""
    line = f"set -o pipefail; {sys.executable} -m histoqueue {command} | true"
    done = subprocess.run(
        ["bash", "-c", line],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
    )
    assert done.stderr == ""


def test_an_answer_that_cannot_be_written_is_told(server: ApiServer, tiles: Path) -> None:
    """In one line, and by the status: a full disk is no success."""
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m histoqueue models > /dev/full"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
    )
    assert (done.returncode, done.stderr) == (2, "error: [Errno 28] No space left on device\n")


def test_a_list_that_is_closed_is_empty(server: ApiServer, tiles: Path) -> None:
    """Nothing can be on it."""
    command = f"{sys.executable} -m histoqueue submit - --out r.csv <&-"
    done = subprocess.run(
        ["bash", "-c", command], check=False, capture_output=True, text=True, timeout=60, env=environment()
    )
    assert (done.returncode, done.stderr.strip()) == (0, "0 of 0 files, 0.0/s")


@pytest.mark.parametrize("where", ["2>&1 | true", "2>&-"])
def test_a_run_does_not_depend_on_who_watches_it(where: str, server: ApiServer, tiles: Path) -> None:
    """Progress that nobody can read any more ends nothing; the status is that of the files."""
    (tiles / "page.png").write_text("<!doctype html>")
    command = f"sleep 0.5; {sys.executable} -m histoqueue submit tiles --out r.csv"
    line = f"({command}; echo $? > status) {where}"
    subprocess.run(["bash", "-c", line], check=True, timeout=60, env=environment())
    assert Path("status").read_text() == "1\n"
    assert len(Path("r.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_any_name_can_be_shown(encoding: str, more: list[str], server: ApiServer, tiles: Path) -> None:
    """In one line, whatever it holds and whatever the terminal can show; it moves no cursor."""
    names = ["a\nb\x1b[31m.png", os.fsdecode(b"\xe4.png"), "\u80ba.png"]
    for name in names:
        Path(name).write_bytes(png_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "histoqueue", "predict", *more, *names],
        check=False,
        capture_output=True,
        timeout=60,
        env={**environment(), "PYTHONIOENCODING": encoding},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert not set(done.stdout) & set(b"\x1b\r\x07")
    if more:
        assert [json.loads(line)["file"] for line in lines] == [names[0], "\\xe4.png", names[2]]
    else:
        assert [line.split()[0] for line in lines[1:4]] == [
            "a\\nb\\x1b[31m.png",
            "\\xe4.png",
            names[2] if encoding.startswith("utf") else "\\u80ba.png",
        ]


def test_a_list_may_hold_names_that_are_no_text(server: ApiServer, tiles: Path) -> None:
    """As a folder may."""
    Path(os.fsdecode(b"\xe4.png")).write_bytes(png_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "histoqueue", "submit", "-", "--out", "r.ndjson"],
        check=False,
        input=b"\xe4.png\n",
        capture_output=True,
        timeout=60,
        env={**environment(), "PYTHONIOENCODING": "utf-8:strict"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(Path("r.ndjson").read_text())["status"] == "succeeded"


def test_ctrl_c_is_status_130(server: ApiServer, tiles: Path) -> None:
    """With a word on what is kept, and no traceback, however many requests are held back."""
    server.is_working.clear()
    command = [sys.executable, "-m", "histoqueue", "submit", "tiles", "--out", "r.csv"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        assert wait_until(lambda: len(server.jobs) == 3, 30)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "the same command goes on" in said
    assert "Traceback" not in said


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


def environment() -> dict[str, str]:
    """Return an environment in which the command is found, and holds its output back as it does elsewhere."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "client"), "PYTHONUNBUFFERED": ""}


def test_progress_is_drawn_again_for_who_watches() -> None:
    """In place, and so that a shorter line leaves nothing of a longer one."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    line = ProgressLine(stream)
    line.show(Summary(2000, 100, {}, 100, 2.0))
    line.show(Summary(2000, 2000, {}, 2000, 40.0), is_last=True)
    first, last = stream.getvalue().split("\r")[1:]
    assert first == "100 of 2000 files, 50.0/s, 0:00:38 left"
    assert last.rstrip(" \n") == "2000 of 2000 files, 50.0/s"
    assert len(last.rstrip("\n")) >= len(first)


def test_progress_keeps_to_one_line_of_a_narrow_terminal() -> None:
    """A longer one could not be drawn again: each would push the last up. At the end all of it is said."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    with open(leader, "rb", buffering=0) as reader, open(follower, "w") as stream:  # noqa: PTH123 - no paths
        line = ProgressLine(stream)
        summary = Summary(2000, 100, {"INVALID_IMAGE": 2, "UNREADABLE_FILE": 3}, 100, 2.0)
        line.show(summary)
        assert reader.read(1000).decode() == "\r105 of 2000 files, 50.0/s, 0:00:37 left"
        line.show(summary, is_last=True)
        assert reader.read(1000).decode().strip() == describe(summary)


def test_progress_is_rare_in_a_log() -> None:
    """Where nobody watches, a line in ten seconds, and the last one."""
    stream = io.StringIO()
    line = ProgressLine(stream)
    for number in range(50):
        line.show(Summary(100, number, {}, number, 1.0))
    line.show(Summary(100, 50, {"POISON": 50}, 100, 1.0), is_last=True)
    assert stream.getvalue() == "100 of 100 files, 100.0/s, 50 failed (POISON 50)\n"


@pytest.mark.parametrize("body", [b"", b"<html>"])
def test_a_server_without_a_date_is_no_fault(body: bytes) -> None:
    """Nothing can be said of its clock."""
    finding = _doctor._clock(_http.Answer(200, {}, body))
    assert finding.is_well is None


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://lab:port"])
def test_a_proxy_that_cannot_be_used_is_wrong_usage(
    proxy: str, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """One needs a package that is not there, one is no address; both are of the environment."""
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", proxy)
    assert main(["models", "--server", "http://lab.example", "--patience", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
