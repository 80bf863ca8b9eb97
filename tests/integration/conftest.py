"""One whole system for all the tests here that leave it well."""

from collections.abc import Iterator

import pytest

from tests.stack import Stack, png


@pytest.fixture(scope="session")
def tile() -> bytes:
    """A drawn tile."""
    return png()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A system that tests share; each leaves it well."""
    with Stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture(scope="session")
def stack_on_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The same, with every object going through the S3 server."""
    with Stack(tmp_path_factory.mktemp("stack-on-s3"), {"OBJECT_STORE": "s3"}) as running:
        yield running
