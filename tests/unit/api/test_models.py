"""What a client learns about models and load before it sends anything."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from shared.manifest import FileDigest, parse_manifest
from shared.services import Services
from tests.factories import write_model
from tests.work import claim

Submit = Callable[..., Any]


def publish_with_card(services: Services, folder: Path, card: bytes) -> None:
    """Publish version 1.1.0, which has a card."""
    write_model(folder, "1.1.0")
    (folder / "card.md").write_bytes(card)
    manifest = parse_manifest((folder / "manifest.json").read_bytes())
    digest = FileDigest(name="card.md", bytes=len(card), sha256=hashlib.sha256(card).hexdigest())
    whole = manifest.model_copy(update={"files": (*manifest.files, digest)})
    (folder / "manifest.json").write_text(whole.model_dump_json())
    services.models.publish(folder)


def test_every_version_is_listed_with_the_live_one(
    client: FlaskClient, services: Services, tmp_path: Path
) -> None:
    """Newest first; classes in the order of the network's outputs."""
    publish_with_card(services, tmp_path / "new", b"# Card\n")
    body = client.get("/models").get_json()
    assert body["live"] == "1.1.0"
    first, second = body["versions"]
    assert (first["version"], first["live"]) == ("1.1.0", True)
    assert (second["version"], second["live"]) == ("1.0.0", False)
    assert [item["name"] for item in first["classes"]] == ["lung_n", "lung_aca", "lung_scc"]
    assert first["links"] == {"self": "/models/1.1.0", "card": "/models/1.1.0/card"}
    manifest = services.models.manifest("1.1.0").model_dump(mode="json")
    told = ("name", "created_at", "intended_use", "licence", "input", "indeterminate_below", "metrics")
    assert {name: first[name] for name in told} == {name: manifest[name] for name in told}
    assert second["links"]["card"] is None
    assert "not for diagnostic use" in body["notice"]
    one = client.get("/models/1.1.0").get_json()
    assert one["sha256"] == first["sha256"]


def test_the_card_is_served_as_it_was_published(
    client: FlaskClient, services: Services, tmp_path: Path
) -> None:
    """Markdown; a version without one says so."""
    publish_with_card(services, tmp_path / "new", b"# Card\n")
    answer = client.get("/models/1.1.0/card")
    assert (answer.data, answer.content_type) == (b"# Card\n", "text/markdown; charset=utf-8")
    assert "not for diagnostic use" in answer.headers["X-HistoQueue-Notice"]
    for path in ("/models/1.0.0/card", "/models/9.9.9/card", "/models/9.9.9", "/models/../x"):
        problem = client.get(path)
        assert problem.content_type == "application/problem+json"
        assert problem.status_code == 404


def test_without_a_model_there_is_no_list(bare_services: Services, client: FlaskClient) -> None:
    """Nothing was ever published: 503, as for a submission."""
    bare_services.objects.delete("models/lung-cnn/current.json")
    bare_services.models._live = None
    assert client.get("/models").get_json()["code"] == "NO_MODEL"


def test_the_capacity_counts_what_is_open(submit: Submit, client: FlaskClient, services: Services) -> None:
    """Queued, running, the limit, and who works."""
    first = submit().get_json()["id"]
    submit()
    claim(services.jobs, first)
    body = client.get("/capacity").get_json()
    assert (body["open"], body["queued"], body["running"], body["limit"]) == (2, 1, 1, 5)
    assert body["workers"] == [{"name": "w1", "model": "lung-cnn 1.0.0"}]
    assert body["oldest_waiting_seconds"] >= 0
    assert (body["drain_rate_per_second"], body["memory_share"]) == (0.0, 0.0)
