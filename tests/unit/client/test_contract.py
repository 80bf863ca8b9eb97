"""The client keeps to what the server promises, and to the Pythons that it promises itself."""

import ast
import re
from pathlib import Path

import histoqueue
import pytest
from histoqueue import _errors as errors
from histoqueue._problem import Problem

ROOT = Path(__file__).resolve().parents[3]
SOURCES = sorted((ROOT / "client/histoqueue").glob("*.py"))
CODES = set(
    re.findall(r"^`([A-Z_]+)` · \d{3}", (ROOT / "docs/reference/errors.md").read_text(), re.MULTILINE)
)
CLASSES = [found for found in errors.every_class() if found.code]


def test_each_code_of_the_server_has_one_class() -> None:
    """And no class stands for a code that there is not."""
    assert len(CODES) > 25
    assert sorted(found.code for found in CLASSES) == sorted(CODES)


def test_the_tree_is_drawn_as_it_is() -> None:
    """The picture in the docstring has the same branches in the same order."""

    def drawn(base: type[errors.HistoQueueError], depth: int) -> list[tuple[int, str]]:
        below = [line for child in base.__subclasses__() for line in drawn(child, depth + 1)]
        return [(depth, base.__name__), *below]

    picture = re.findall(r"^([│├└─ ]*)(\w+)(?:  .*)?$", (errors.__doc__ or "").split("\n\n")[1], re.MULTILINE)
    assert [(len(branch) // 4, name) for branch, name in picture] == drawn(errors.HistoQueueError, 0)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.code)
def test_a_problem_becomes_the_error_of_its_code(kind: type[errors.HistoQueueError]) -> None:
    """With the server's words and its advice about trying again."""
    error = errors.error_for(Problem(kind.code, detail="Expected this. Received: that", retryable=True), 3)
    assert type(error) is kind
    assert str(error) == f"{kind.code}: Expected this. Received: that"
    assert error.is_temporary
    assert error.retry_after_seconds == 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.AccessDenied),
        (403, errors.AccessDenied),
        (418, errors.CallerError),
        (429, errors.Unavailable),
        (503, errors.Unavailable),
        (500, errors.OperatorError),
    ],
)
def test_a_code_of_a_newer_server_takes_the_class_of_its_status(
    status: int, kind: type[errors.HistoQueueError]
) -> None:
    """It is caught by who must act, as all are."""
    assert type(errors.error_for(Problem("BRAND_NEW", status=status))) is kind


def test_public_names_are_what_they_seem() -> None:
    """Everything in `__all__` is there, in order, and every error can be imported from the top."""
    assert list(histoqueue.__all__) == sorted(
        histoqueue.__all__, key=lambda name: (not name.isupper(), name.startswith("_"), name)
    )
    assert all(hasattr(histoqueue, name) for name in histoqueue.__all__)
    assert {found.__name__ for found in errors.every_class()} <= set(histoqueue.__all__)
    public = {name for name in vars(histoqueue) if not name.startswith("_")}
    assert public <= set(histoqueue.__all__)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_python_3_9_can_read_every_file(path: Path) -> None:
    """Its grammar is enough, and annotations are not evaluated."""
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    has_annotations = any(
        isinstance(node, ast.AnnAssign) or (isinstance(node, ast.FunctionDef) and node.returns)
        for node in ast.walk(tree)
    )
    if has_annotations:
        assert "from __future__ import annotations" in path.read_text()
    newer = {("zip", "strict"), ("dataclass", "slots"), ("dataclass", "kw_only")}
    for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        used = {(ast.unparse(call.func), keyword.arg or "") for keyword in call.keywords}
        assert not used & newer, f"{used & newer} came with Python 3.10"
