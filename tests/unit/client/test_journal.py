"""What a run keeps of itself, so that the same call goes on with it."""

import resource
import tracemalloc
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from histoqueue import CallerError, Client, JournalError
from histoqueue._bulk import Summary
from histoqueue._export import write_csv, written_whole
from histoqueue._journal import Entry, Journal
from histoqueue._scan import Found

from tests.api_server import ApiServer
from tests.unit.client.conftest import forget, run


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


def test_a_run_that_waits_has_its_journal_alone_too(tmp_path: Path) -> None:
    """It has written nothing since it last kept what there was."""
    with Journal(tmp_path / "journal", {}), pytest.raises(JournalError, match="alone"):
        Journal(tmp_path / "journal", {})


def test_what_was_answered_last_is_kept_at_the_end(tmp_path: Path) -> None:
    """However the run ends."""
    with suppress(KeyboardInterrupt), Journal(tmp_path / "journal", {}) as journal:
        journal.add([Found("a.png", "1:1")])
        journal.record(Entry("a.png", "", {"status": "succeeded"}))
        raise KeyboardInterrupt
    with Journal(tmp_path / "journal", {}) as journal:
        assert journal.counts() == {"": 1}


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


def test_a_journal_is_no_file_of_results(server: ApiServer, client: Client, tiles: Path) -> None:
    """These would take its place at the end, and the next call would begin anew."""
    Path("linked.csv").symlink_to("results.csv")
    for journal in ("results.csv", "tiles/../results.csv", "linked.csv"):
        with pytest.raises(ValueError, match="Expected a journal apart from the results"):
            run(client, "tiles", journal=Path(journal))
    assert server.jobs == []
    assert not Path("results.csv").exists()


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
