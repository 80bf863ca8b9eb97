"""The contract for machines names every route, every option and every problem, and brings its own assets."""

import io
import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.openapi import openapi_document
from api.options import BatchOptions, Options
from shared.problems import PROBLEMS
from tests.factories import jpeg_bytes

#: They show the contract, and are no part of it.
OF_THE_PAGE = {"openapi.document", "openapi.docs", "openapi.errors", "openapi.asset", "web.asset"}


def test_every_route_is_in_the_document_and_nothing_else(app: Flask) -> None:
    """With its method, its path and its name."""
    routes = set()
    for rule in app.url_map.iter_rules():
        (method,) = {"GET", "POST", "DELETE"} & (rule.methods or set())
        path = re.sub(r"<(?:\w+:)?(?:job_|batch_)?(\w+)>", r"{\1}", rule.rule)
        if rule.endpoint not in OF_THE_PAGE:
            routes.add((method, path, rule.endpoint))
    documented = {
        (method.upper(), path, operation["operationId"])
        for path, methods in openapi_document()["paths"].items()
        for method, operation in methods.items()
    }
    assert documented == routes


def test_every_option_is_in_the_document() -> None:
    """With its range, as the server checks it."""
    parameters = openapi_document()["paths"]["/predict"]["post"]["parameters"]
    by_name = {item["name"]: item["schema"] for item in parameters if item["in"] == "query"}
    assert by_name.keys() == Options.model_fields.keys()
    assert (by_name["mpp"]["minimum"], by_name["mpp"]["maximum"]) == (0.05, 10)


#: A value of each option that is taken as it stands.
GIVEN = {
    **{"expires_in": "60", "model_version": "1.0.0", "mpp": "0.5", "cache": "false", "explain": "true"},
    **{"priority": "bulk", "custom_id": "block 7", "webhook_url": "https://receiver.example.org/"},
}


@pytest.mark.parametrize(("path", "options"), [("/predict", Options), ("/batches", BatchOptions)])
def test_an_option_may_be_a_field_of_the_form_and_nothing_else_may(
    path: str, options: type[BatchOptions], client: FlaskClient
) -> None:
    """In the document as on the server, and as the same option of the query."""
    operation = openapi_document()["paths"][path]["post"]
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    query = {item["name"]: item["schema"] for item in operation["parameters"] if item["in"] == "query"}
    assert {name: form["properties"][name] for name in query} == query
    assert form["properties"].keys() == {"file", *options.model_fields}
    assert not form["additionalProperties"]
    for name, value in [*GIVEN.items(), ("file", "text"), ("other", "1")]:
        image = (io.BytesIO(jpeg_bytes()), "a.jpg")
        answer = client.post(path, data={"file": image, name: [value, image] if name == "file" else value})
        is_taken = name != "file" and name in form["properties"]
        said = answer.text
        assert answer.status_code == (202 if is_taken else 400), (name, said)
        if is_taken:
            client.post(f"{answer.headers['Location']}/cancel")


@pytest.mark.parametrize("kind", ["image/jpeg", "image/png", "image/tiff", "application/octet-stream"])
def test_what_an_image_may_be_declared_as_is_in_the_document(kind: str, client: FlaskClient) -> None:
    """The client sends what it does not know as application/octet-stream."""
    assert kind in openapi_document()["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert client.post("/predict", data=jpeg_bytes(), content_type=kind).status_code == 202


def test_a_key_of_a_batch_may_have_a_name() -> None:
    """It is a string, or an object with the two members that the server takes."""
    body = openapi_document()["paths"]["/batches"]["post"]["requestBody"]["content"]["application/json"]
    plain, named = body["schema"]["properties"]["keys"]["items"]["anyOf"]
    assert plain["type"] == "string"
    assert (named["properties"].keys(), named["required"]) == ({"key", "custom_id"}, ["key"])


def test_every_problem_that_a_request_can_have_is_in_the_document() -> None:
    """Those that only a job has, and those that no route of ours answers, apart."""
    text = str(openapi_document()["paths"])
    missing = {code for code in PROBLEMS if f"'{code}'" not in text}
    assert missing == {
        *("NOT_FOUND", "METHOD_NOT_ALLOWED", "QUEUE_UNAVAILABLE"),
        *("JOB_FAILED", "INPUT_MISSING", "MODEL_ERROR", "POISON", "ATTEMPTS_EXHAUSTED", "DEADLINE_EXCEEDED"),
        "ENGINE_FAILED",
        # Of an item, in the answer to its batch.
        "INVALID_ITEM",
    }


def test_the_page_brings_its_own_assets(client: FlaskClient) -> None:
    """Nothing is asked of another host: the page works where there is no other."""
    page = client.get("/docs")
    assert page.status_code == 200
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) == 3
    for link in links:
        assert link.startswith("/docs/")
        with client.get(link) as answer:
            assert answer.status_code == 200


def test_the_page_reads_the_document_where_the_server_is_mounted(client: FlaskClient) -> None:
    """Its script, and what is built from the document, ask below the prefix as every link does."""
    mounted = {"SCRIPT_NAME": "/tiles"}
    script = client.get("/docs/start.js", environ_overrides=mounted).text
    assert 'url: "/tiles/openapi.json"' in script
    document: Any = client.get("/openapi.json", environ_overrides=mounted).get_json()
    assert document["servers"] == [{"url": "/tiles"}]
    assert client.get("/openapi.json").get_json()["servers"] == [{"url": "/"}]


@pytest.mark.parametrize("path", ["/docs", "/docs/errors"])
def test_a_page_is_as_wide_as_the_screen(path: str, client: FlaskClient) -> None:
    """Without being told so, a phone shows it as wide as a desk's, in letters that nobody reads."""
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in client.get(path).text


@pytest.mark.parametrize("name", ["../__init__.py", "..%2f__init__.py", "css", "nothing.js", "/etc/passwd"])
def test_nothing_but_the_assets_is_served(client: FlaskClient, name: str) -> None:
    """A path leads to no other file."""
    assert client.get(f"/docs/{name}").status_code == 404


def test_the_document_is_served(client: FlaskClient) -> None:
    """As JSON, without a key."""
    document: Any = client.get("/openapi.json").get_json()
    assert document["openapi"] == "3.1.0"
    assert document["paths"].keys() == openapi_document()["paths"].keys()


def test_headers_that_come_at_times_are_in_the_document() -> None:
    """They are stated, and not required."""
    paths = openapi_document()["paths"]
    for path, status, name in (
        ("/predict", "200", "Preference-Applied"),
        ("/predict", "200", "Idempotency-Replayed"),
        ("/predict", "202", "Idempotency-Replayed"),
        ("/batches", "202", "Idempotency-Replayed"),
        ("/batches", "202", "Retry-After"),
    ):
        header = paths[path]["post"]["responses"][status]["headers"][name]
        assert not header.get("required"), (path, status, name)
    assert "Preference-Applied" in paths["/result/{id}"]["get"]["responses"]["200"]["headers"]
