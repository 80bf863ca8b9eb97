"""The reference page knows every route and every option."""

import re
from pathlib import Path

from flask import Flask

from api.options import Options

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "http-api.md"


def test_every_route_is_on_the_page(app: Flask) -> None:
    """With its method, in a heading."""
    headings = " ".join(re.findall(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(?:job_|batch_)?(\w+)>", r"&lt;\1&gt;", rule.rule)
        (method,) = {"GET", "POST", "DELETE"} & (rule.methods or set())
        assert re.search(rf"{method} {re.escape(path)}(?![\w/&])", headings), rule


def test_every_option_is_on_the_page() -> None:
    """In the table of options."""
    text = PAGE.read_text(encoding="utf-8")
    for name in Options.model_fields:
        assert f"| `{name}` |" in text
