"""The documentation cannot lie: what it lists is what there is."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from api.openapi import openapi_document
from ops.prepare import newest_bundled_model
from shared.settings import Settings
from worker.engine.pipeline import QualityFigures
from worker.engine.quality import Reason

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = (ROOT / "docs/reference/configuration.md").read_text()


def shown(value: object) -> str:
    """Return a default as a reader of the page sees it."""
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    """A setting that nobody can read about does not exist."""
    row = re.search(rf"^\| `{name.upper()}` \| (.+?) \| (.+) \|$", CONFIGURATION, re.MULTILINE)
    assert row, name
    default = Settings.model_fields[name].default
    if name != "redis_url" and default not in (None, ""):
        assert f"`{shown(default)}`" in row[1]


def test_the_bounds_of_a_setting_are_documented() -> None:
    """All but 0, 1 and the hundred years, which the page states for all times."""
    for name, field in Settings.model_fields.items():
        row = re.search(rf"^\| `{name.upper()}` \|.*\|$", CONFIGURATION, re.MULTILINE)
        bounds = [getattr(rule, side, None) for rule in field.metadata for side in ("ge", "le")]
        for bound in bounds:
            if bound not in (None, 0, 1, 3_153_600_000):
                assert re.search(rf"\b{bound}\b", row[0] if row else ""), name


def test_every_documented_setting_exists() -> None:
    """Nor does one that nothing reads."""
    documented = {name.lower() for name in re.findall(r"^\| `([A-Z0-9_]+)` \|", CONFIGURATION, re.MULTILINE)}
    assert documented == set(Settings.model_fields)


def test_the_example_file_names_every_setting() -> None:
    """What can be set can be uncommented."""
    example = (ROOT / ".env.example").read_text()
    assert {f"#{name.upper()}=" for name in Settings.model_fields} <= set(
        re.findall(r"^#[A-Z0-9_]+=", example, re.M)
    )


def test_every_reason_and_every_measurement_of_a_result_is_documented() -> None:
    """A word that nobody can look up is no warning."""
    page = (ROOT / "docs/reference/http-api.md").read_text()
    rows = re.findall(r"^ *\| `(\w+)` \|.+\|.*\|$", page[page.index("| reason |") :], re.MULTILINE)
    assert set(rows) == {"low_confidence", *get_args(Reason)}
    example = page[page.index('"quality": {') : page.index('"error": null')]
    assert set(re.findall(r'"(\w+)":', example)) == {"quality", *QualityFigures.__annotations__}


@pytest.mark.parametrize(
    ("heading", "path", "method"),
    [
        ("## POST /predict", "/predict", "post"),
        ("## GET /result/&lt;id&gt;\n", "/result/{id}", "get"),
        ("## GET /result/&lt;id&gt;/heatmap.png", "/result/{id}/heatmap.png", "get"),
    ],
)
def test_every_status_of_a_submission_and_of_its_result_is_documented(
    heading: str, path: str, method: str
) -> None:
    """What all routes answer alike stands in front of the tables."""
    page = (ROOT / "docs/reference/http-api.md").read_text()
    section = page[page.index(heading) :].partition("\n## ")[0]
    stated = openapi_document()["paths"][path][method]["responses"].keys() - {"401", "403", "429", "500"}
    told = ", ".join(re.findall(r"^\| ([\d, ]+) \|", section, re.MULTILINE)).split(", ")
    assert stated <= set(told)


@pytest.mark.parametrize("command", ["make up", "make test"])
def test_the_readme_starts_with_the_two_commands(command: str) -> None:
    """They stand in its first screen."""
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:45])
    assert command in first_screen
    assert "not for diagnostic use" in first_screen


def test_every_make_target_explains_itself() -> None:
    """`make` lists them all."""
    makefile = (ROOT / "Makefile").read_text()
    declared = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert declared
    for target in declared[1].split():
        assert re.search(rf"^{target}:.*## \S", makefile, re.MULTILINE), target


@pytest.mark.parametrize("command", ["keys", "models", "prepare", "recover", "up"])
def test_an_operators_command_explains_itself_and_does_nothing_else(command: str, tmp_path: Path) -> None:
    """Whoever asks `python -m ops.up --help` starts no servers."""
    program = [sys.executable, "-m", f"ops.{command}", "--help"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        program, check=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.stdout.startswith(f"usage: python -m ops.{command}")
    assert not list(tmp_path.iterdir())


def test_a_model_is_trained_under_a_version_that_is_not_released_yet() -> None:
    """A version never changes, and `ops.models publish` without a folder takes the newest."""
    said = {}
    for arguments in ((), ("VERSION=3.2.1",)):
        command = ["make", "--no-print-directory", "-n", "train", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        said[arguments] = done.stdout.split()[-1]
    bundled = newest_bundled_model().name.removeprefix("lung-cnn-")
    assert [int(part) for part in said[()].split(".")] > [int(part) for part in bundled.split(".")]
    assert said[("VERSION=3.2.1",)] == "3.2.1"


def test_every_link_of_a_page_leads_somewhere() -> None:
    """To a file or folder that there is, and to a heading that it has."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")]
    pages += [page for folder in ("docs", "deploy", "models") for page in (ROOT / folder).glob("*/**/*.md")]
    astray = []
    for page in pages:
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
            name, _, heading = link.partition("#")
            target = page.parent / name if name else page
            if not target.exists() or (heading and heading not in headings(target)):
                astray.append(f"{page.relative_to(ROOT)}: {link}")
    assert not astray


def headings(page: Path) -> set[str]:
    """Return the words that a link to a heading of this page ends in, as they are made by GitHub."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text.replace("&lt;", "").replace("&gt;", ""), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_no_committed_text_names_a_registry() -> None:
    """Lock files hold names, versions and hashes alone."""
    locked = [*(ROOT / "requirements").glob("*.txt"), *(ROOT / "benchmarks/peers").glob("*.txt")]
    for path in locked:
        assert not re.search(r"https?://|--[a-z-]*index|--find-links", path.read_text()), path.name
