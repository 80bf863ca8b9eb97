"""The web page in a real browser, as somebody with a few tiles meets it."""

import csv
import io
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Response, request
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from shared.api_keys import KeyStore, Scope
from shared.errors import JobStoreUnavailable
from tests import api_server
from tests.api_server import FAILING_WIDTH, ApiServer
from tests.stack import png

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: Debian's package chromium"),
]
Opened = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's chromium, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """A server whose clerk answers as a worker would."""
    picture = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 128)).save(picture, "PNG")
    monkeypatch.setattr(api_server, "HEATMAP", picture.getvalue())
    with ApiServer(tmp_path) as running:
        yield running


@pytest.fixture
def opened(browser: Browser, server: ApiServer) -> Iterator[Opened]:
    """Open the page in a tab of its own; at the end, nothing may have been refused or have failed in it."""
    complaints: list[str] = []
    context = browser.new_context()

    def open_page(expected_complaint: str = "") -> Page:
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda said: (
                complaints.append(said.text)
                if said.type in ("error", "warning")
                and not (expected_complaint and expected_complaint in said.text)
                else None
            ),
        )
        page.goto(server.url)
        return page

    yield open_page
    context.close()
    assert complaints == []


def tile(name: str, width: int = 48) -> dict[str, object]:
    """Return a file as a browser is given one."""
    picture = io.BytesIO()
    Image.new("RGB", (width, 48), (200, len(name), 180)).save(picture, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": picture.getvalue()}


def give(page: Page, *files: dict[str, object]) -> None:
    """Choose files, as by the button."""
    page.get_by_label("Tiles of lung tissue").set_input_files(list(files))  # type: ignore[arg-type]


def test_tiles_become_jobs_and_each_shows_how_it_ended(opened: Opened, server: ApiServer) -> None:
    """With its class, its probabilities and its picture; the page says what it is not for."""
    page = opened()
    expect(page.get_by_text("Research use only, not for diagnostic use.")).to_be_visible()
    expect(page.get_by_text("The server is ready.")).to_be_visible()
    give(page, tile("one.png"), tile("other.png"), tile("cut.png", FAILING_WIDTH))
    expect(page.locator("#summary")).to_have_text("2 Lung adenocarcinoma, 1 failed")
    row = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name="one.png"))
    expect(row).to_contain_text("Lung adenocarcinoma, 97.2 %")
    expect(row.get_by_role("meter", name="lung_scc")).to_have_js_property("value", 0.017)
    expect(row.locator("img.tile")).to_be_visible()
    failed = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name="cut.png"))
    expect(failed).to_contain_text("Expected a JPEG. It breaks off.")
    expect(failed.get_by_role("meter")).to_have_count(0)
    assert len(server.jobs) == 3


def test_a_drawn_example_shows_how_it_works_to_who_has_no_tile(opened: Opened) -> None:
    """With a heat map over it, shown and hidden by one button."""
    page = opened()
    page.get_by_label("Heat map: where the network looked, not why").check()
    page.get_by_role("button", name="Try a drawn example").click()
    button = page.get_by_role("button", name="Heat map")
    button.click()
    expect(page.get_by_alt_text("Where the network looked, not why")).to_be_visible()
    expect(button).to_have_attribute("aria-pressed", "true")
    button.click()
    expect(page.get_by_alt_text("Where the network looked, not why")).to_be_hidden()
    expect(button).to_have_attribute("aria-pressed", "false")


def test_a_tile_may_be_dropped_anywhere(opened: Opened, server: ApiServer) -> None:
    """The page stays where it is."""
    page = opened()
    page.evaluate(
        """async () => {
          const example = await fetch("/static/example.png");
          const dropped = new DataTransfer();
          dropped.items.add(new File([await example.blob()], "dropped.png", {type: "image/png"}));
          document.querySelector("footer").dispatchEvent(
            new DragEvent("drop", {dataTransfer: dropped, bubbles: true, cancelable: true}));
        }"""
    )
    expect(page.get_by_role("heading", name="dropped.png")).to_be_visible()
    expect(page.locator("#summary")).to_have_text("1 Lung adenocarcinoma")
    assert len(server.jobs) == 1


def test_options_go_with_each_tile(opened: Opened, server: ApiServer) -> None:
    """As they stood when it was given."""
    page = opened()
    give(page, tile("plain.png"))
    expect(page.locator("#summary")).to_have_text("1 Lung adenocarcinoma")
    page.get_by_label("Micrometres per pixel").fill("0.5")
    page.get_by_label("Heat map: where the network looked").check()
    give(page, tile("told.png"))
    expect(page.locator("#summary")).to_have_text("2 Lung adenocarcinoma")
    assert [(job.spec.input.mpp, job.spec.explain) for job in server.jobs] == [(None, False), (0.5, True)]


def test_a_waiting_tile_can_be_canceled_and_tried_again(opened: Opened, server: ApiServer) -> None:
    """And it says where it stands meanwhile."""
    server.is_working.clear()
    page = opened()
    give(page, tile("slow.png"))
    expect(page.get_by_role("listitem")).to_contain_text("In the queue", timeout=20_000)
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("listitem")).to_contain_text("Canceled.")
    server.is_working.set()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#summary")).to_have_text("1 Lung adenocarcinoma")


def test_a_reload_finds_the_jobs_again_and_one_can_be_deleted(opened: Opened, server: ApiServer) -> None:
    """They are on the server, whatever becomes of the page."""
    page = opened()
    give(page, tile("kept.png"))
    expect(page.locator("#summary")).to_have_text("1 Lung adenocarcinoma")
    page.reload()
    expect(page.get_by_role("heading", name="kept.png")).to_be_visible()
    expect(page.locator("#summary")).to_have_text("1 Lung adenocarcinoma")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Delete from the server").click()
    assert server.jobs[0].result
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete from the server").click()
    expect(page.locator("#jobs")).to_be_hidden()
    assert not server.jobs[0].result
    page.reload()
    expect(page.get_by_role("listitem")).to_have_count(0)


def test_a_job_that_the_server_has_dropped_is_not_called_open_or_unsubmitted(
    opened: Opened, server: ApiServer
) -> None:
    """Neither in the count nor in the table: it was submitted, and how it ended is known no more."""
    page = opened("410")
    give(page, tile("old.png"))
    expect(page.locator("#summary")).to_have_text("1 Lung adenocarcinoma")
    server.ahead_ms = int(server.settings.result_retention_seconds * 1000) + 1000
    page.reload()
    expect(page.locator("#summary")).to_have_text("1 unknown")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as CSV").click()
    (row,) = csv.DictReader(Path(saved.value.path()).read_text(encoding="utf-8").splitlines())
    assert row["status"] == "unknown"
    assert "expired" in row["error"] or "retention" in row["error"]


def test_a_job_that_was_lost_from_sight_is_followed_again_once_something_is_done_with_it(
    opened: Opened, server: ApiServer
) -> None:
    """A fault of the server ended that; canceled and tried again, it counts as what it is."""
    faults: list[str] = []

    def fail_once() -> Response | None:
        if request.path.startswith("/result/") and not faults:
            faults.append(request.path)
            return Response("oops", status=500)
        return None

    server.app.before_request(fail_once)
    server.is_working.clear()
    page = opened("500")
    give(page, tile("one.png"))
    expect(page.get_by_text("The server answered 500")).to_be_visible(timeout=20_000)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#summary")).to_have_text("1 canceled")
    server.is_working.set()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#summary")).to_have_text("1 Lung adenocarcinoma")


def test_the_page_fits_a_narrow_window(opened: Opened) -> None:
    """As a page that is enlarged four times has: nothing lies beside it, whatever a file is called."""
    page = opened()
    page.set_viewport_size({"width": 320, "height": 600})
    give(page, tile(f"{'a' * 200}.png"))
    expect(page.locator("#summary")).to_have_text("1 Lung adenocarcinoma")
    assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_who_leaves_before_every_tile_was_sent_is_asked(opened: Opened, server: ApiServer) -> None:
    """What was sent is found again after a reload; the others are files that only this page has."""
    server.is_working.clear()
    page = opened()
    give(page, *(tile(f"{number}.png") for number in range(5)))
    expect(page.get_by_text("In the queue")).to_have_count(4, timeout=20_000)
    # A browser asks only who has used the page.
    page.get_by_label("Heat map: where the network looked").check()
    with page.expect_event("dialog") as asked:
        page.evaluate("setTimeout(() => location.reload())")
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()
    server.is_working.set()
    expect(page.locator("#summary")).to_have_text("5 Lung adenocarcinoma", timeout=20_000)
    page.reload()
    expect(page.locator("#summary")).to_have_text("5 Lung adenocarcinoma")


def test_a_busy_server_is_asked_again_when_it_says(
    opened: Opened, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the tile becomes one job, once."""
    create, refusals = server.services.jobs.create, [JobStoreUnavailable("away")] * 2

    def refuse_at_first(*arguments: object, **named: object) -> object:
        if refusals:
            raise refusals.pop()
        return create(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(server.services.jobs, "create", refuse_at_first)
    page = opened("503")
    give(page, tile("patient.png"))
    expect(page.get_by_role("listitem")).to_contain_text("Again in")
    expect(page.locator("#summary")).to_have_text("1 Lung adenocarcinoma", timeout=20_000)
    assert len(server.jobs) == 1


def test_what_is_no_image_is_said_at_its_own_name_and_as_text(opened: Opened) -> None:
    """Whatever that name is."""
    page = opened("415")
    name = "<img src=x onerror=alert(1)>.png"
    give(page, {"name": name, "mimeType": "image/png", "buffer": b"not an image"})
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.get_by_role("listitem")).to_contain_text("Not an image that is accepted.")
    expect(page.locator("#summary")).to_have_text("1 not submitted")
    page.get_by_role("button", name="Take ended ones off this page").click()
    expect(page.locator("#jobs")).to_be_hidden()


def test_the_table_is_one_for_spreadsheets(opened: Opened) -> None:
    """A row a tile, the notice in each, and no cell that runs."""
    page = opened()
    give(page, tile('=cmd"|x.png'), tile("cut.png", FAILING_WIDTH))
    expect(page.locator("#summary")).to_have_text("1 Lung adenocarcinoma, 1 failed")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as CSV").click()
    text = Path(saved.value.path()).read_text(encoding="utf-8")
    rows = {row["file"]: row for row in csv.DictReader(text.splitlines())}
    assert rows.keys() == {"'=cmd\"|x.png", "cut.png"}
    assert {row["notice"] for row in rows.values()} == {"Research use only, not for diagnostic use."}
    good, cut = rows["'=cmd\"|x.png"], rows["cut.png"]
    assert (good["class"], good["probability_lung_aca"], good["status"]) == ("lung_aca", "0.972", "succeeded")
    assert (cut["status"], cut["class"]) == ("failed", "")
    assert "breaks off" in cut["error"]


def test_where_there_are_keys_the_page_asks_for_one(opened: Opened, server: ApiServer) -> None:
    """It goes with every request of this tab, and into no address."""
    _, key = KeyStore(server.services.objects).create("page", frozenset({Scope.SUBMIT, Scope.READ}))
    page = opened("401")
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    expect(page.get_by_label("API key")).to_be_visible()
    page.get_by_label("API key").fill(f" {key} ")
    page.get_by_role("button", name="Use this key").click()
    give(page, tile("one.png"))
    expect(page.locator("#summary")).to_have_text("1 Lung adenocarcinoma")
    expect(page.get_by_label("API key")).to_be_hidden()
    assert not [address for address in addresses if key in address]


def test_a_key_that_is_refused_is_said_to_be(opened: Opened, server: ApiServer) -> None:
    """Wrong, or with characters that no request can carry: the page asks for another, and then goes on."""
    keys = KeyStore(server.services.objects)
    _, key = keys.create("page", frozenset({Scope.SUBMIT, Scope.READ}))
    _, reader = keys.create("dashboard", frozenset({Scope.READ}))
    page = opened("40")
    give(page, tile("one.png"))
    page.get_by_label("API key").fill(reader)
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("alert")).to_contain_text("Expected a key with the scope submit.")
    page.get_by_label("API key").fill("of-another-installation")
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("alert")).to_have_text("The server does not know this key.")
    expect(page.get_by_label("API key")).to_be_focused()
    page.get_by_label("API key").fill(f"{key}\u2019")
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#key:invalid")).to_be_focused()
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#summary")).to_have_text("1 Lung adenocarcinoma")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_folder_or_a_file_that_is_gone_is_no_server_that_is_away(
    opened: Opened, server: ApiServer, tmp_path: Path
) -> None:
    """It is said to be unreadable, at once, and holds nothing up."""
    folder = tmp_path / "slide 7"
    folder.mkdir()
    gone = tmp_path / "gone.png"
    gone.write_bytes(png(7))
    page = opened("Failed to load resource")
    server.is_working.clear()
    give(page, *(tile(f"{number}.png") for number in range(4)))
    expect(page.get_by_text("In the queue")).to_have_count(4, timeout=20_000)
    page.locator("#files").set_input_files([gone])
    gone.unlink()
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 200, "y": 300, "data": data})
    server.is_working.set()
    for name in ("gone.png", "slide 7"):
        row = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name=name))
        expect(row).to_contain_text("It cannot be read", timeout=20_000)
    expect(page.locator("#summary")).to_have_text("4 Lung adenocarcinoma, 2 not submitted")


def test_a_browser_that_keeps_nothing_for_a_page_shows_it_all_the_same(
    browser: Browser, server: ApiServer
) -> None:
    """As one that blocks every site's data; only a reload then forgets."""
    context = browser.new_context()
    context.add_init_script(
        "Object.defineProperty(window, 'sessionStorage',"
        " {get() { throw new DOMException('Access is denied for this document.', 'SecurityError'); }});"
    )
    _, key = KeyStore(server.services.objects).create("page", frozenset({Scope.SUBMIT, Scope.READ}))
    page = context.new_page()
    page.goto(server.url)
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Use this key").click()
    give(page, tile("one.png"))
    expect(page.locator("#summary")).to_have_text("1 Lung adenocarcinoma")
    context.close()


def test_a_proxy_without_its_server_is_a_server_that_is_away(opened: Opened, server: ApiServer) -> None:
    """A restart behind one: the tile waits, and so does a job that is being followed."""
    away: list[str] = []

    def bad_gateway() -> Response | None:
        if request.path == "/predict" or request.path.startswith("/result/"):
            away.append(request.method)
            if away.count(request.method) == 1:
                return Response("<html>Bad Gateway", status=502)
        return None

    server.app.before_request(bad_gateway)
    server.is_working.clear()
    page = opened("502")
    give(page, tile("patient.png"))
    expect(page.get_by_role("listitem")).to_contain_text("In the queue", timeout=30_000)
    server.is_working.set()
    expect(page.locator("#summary")).to_have_text("1 Lung adenocarcinoma", timeout=20_000)
    assert len(server.jobs) == 1


def test_a_tile_that_is_taken_off_while_it_is_deleted_takes_no_other_with_it(
    opened: Opened, server: ApiServer
) -> None:
    """Neither from the count nor from the table."""
    let_go = threading.Event()
    server.app.before_request(lambda: let_go.wait(10) and None if request.method == "DELETE" else None)
    page = opened()
    give(page, tile("one.png"))
    expect(page.locator("#summary")).to_have_text("1 Lung adenocarcinoma")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete from the server").click()
    page.get_by_role("button", name="Take ended ones off this page").click()
    give(page, tile("two.png"))
    expect(page.locator("#summary")).to_have_text("1 Lung adenocarcinoma")
    with page.expect_response(lambda answer: answer.request.method == "DELETE"):
        let_go.set()
    expect(page.get_by_role("heading", name="two.png")).to_be_visible()
    page.wait_for_timeout(200)
    expect(page.locator("#summary")).to_have_text("1 Lung adenocarcinoma")


def test_a_button_that_was_pressed_by_key_keeps_the_focus(opened: Opened) -> None:
    """So that the next press is of the same one; where a row goes, the next thing to press has it."""
    page = opened()
    page.get_by_label("Heat map: where the network looked, not why").check()
    give(page, tile("one.png"), tile("two.png"))
    expect(page.locator("#summary")).to_have_text("2 Lung adenocarcinoma")
    button = page.get_by_role("button", name="Heat map").first
    button.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "false")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete from the server").first.press("Enter")
    expect(page.get_by_role("heading", level=3)).to_have_count(1)
    expect(page.get_by_role("button", name="Heat map")).to_be_focused()
    page.get_by_role("button", name="Take ended ones off this page").press("Enter")
    expect(page.get_by_label("Tiles of lung tissue")).to_be_focused()


def test_a_control_of_a_tile_is_named_after_it(opened: Opened) -> None:
    """Who hears a list of the buttons, or speaks a button's name, knows of which tile each is."""
    page = opened()
    page.get_by_label("Heat map: where the network looked, not why").check()
    give(page, tile("one.png"), tile("two.png"))
    expect(page.locator("#summary")).to_have_text("2 Lung adenocarcinoma")
    for name in ("one.png", "two.png"):
        for what in ("Heat map", "Delete from the server"):
            expect(page.get_by_role("button", name=f"{what}, {name}", exact=True)).to_be_visible()
        expect(page.get_by_role("link", name=f"JSON, {name}", exact=True)).to_be_visible()


def test_the_count_is_not_read_aloud_for_each_tile(opened: Opened, server: ApiServer) -> None:
    """A screen reader is told that tiles were taken and how all of them ended, and little in between."""
    page = opened()
    page.evaluate(
        """() => {
          window.told = [];
          new MutationObserver((changes) => {
            for (const { target } of changes) {
              const element = target.nodeType === Node.ELEMENT_NODE ? target : target.parentElement;
              const region = element.closest("main [role=status]");
              if (region) window.told.push(region.textContent);
            }
          }).observe(document.body, { subtree: true, childList: true, characterData: true });
        }"""
    )
    server.is_working.clear()
    give(page, *(tile(f"{number}.png", 48 + number) for number in range(8)))
    expect(page.locator("#told")).to_have_text("8 open")
    server.is_working.set()
    expect(page.locator("#summary")).to_have_text("8 Lung adenocarcinoma", timeout=20_000)
    told = page.evaluate("window.told")
    assert told == ["8 open", "8 Lung adenocarcinoma"]


def test_a_key_that_is_taken_leaves_the_focus_on_the_page(opened: Opened, server: ApiServer) -> None:
    """Its form goes, and who has no mouse goes on with the tiles."""
    _, key = KeyStore(server.services.objects).create("page", frozenset({Scope.SUBMIT, Scope.READ}))
    page = opened("401")
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Tiles of lung tissue")).to_be_focused()


def test_a_scale_that_is_no_number_is_not_left_out(opened: Opened, server: ApiServer) -> None:
    """As `0,5` is none in an English page: the tile is not sent without it."""
    page = opened()
    scale = page.get_by_label("Micrometres per pixel")
    scale.press_sequentially("1e")
    give(page, tile("one.png"))
    expect(scale).to_be_focused()
    assert (page.get_by_role("listitem").count(), server.jobs) == (0, [])
    scale.fill("0.5")
    give(page, tile("one.png"))
    expect(page.locator("#summary")).to_have_text("1 Lung adenocarcinoma")
    assert [job.spec.input.mpp for job in server.jobs] == [0.5]


def test_without_scripts_the_form_still_submits_a_tile(browser: Browser, server: ApiServer) -> None:
    """The answer is the job."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(server.url)
    expect(page.get_by_role("button", name="Try a drawn example")).to_be_hidden()
    page.locator("#files").set_input_files([{"name": "a.png", "mimeType": "image/png", "buffer": png(7)}])
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url("**/predict")
    assert len(server.jobs) == 1
    context.close()
