"""Lay figures out as Markdown, with no more decimals than their intervals give a meaning to."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from training.terms import LC25000_LUNG

#: What `evaluate` wrote into metrics.json.
Body = Mapping[str, Any]
#: An interval narrower than this leaves a third decimal with a meaning.
_NARROW: Final = 0.02


def is_of_recipe(body: Body) -> bool:
    """Tell whether the figures are of a recipe on its own data, and not of a published version elsewhere."""
    return bool(body["kind"] == "cross-validation")


def is_of_lc25000(body: Body) -> bool:
    """Tell whether they are of the tiles that the card's own words speak of."""
    return is_of_recipe(body) and bool(body["provenance"]["dataset_sha256"] == LC25000_LUNG)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def interval(item: Mapping[str, float]) -> str:
    """Return a figure with its interval, with no more decimals than the interval gives a meaning to."""
    undefined = {name for name, value in item.items() if value is None or math.isnan(value)}
    if "value" in undefined:
        return "not defined"
    if undefined:
        return f"{item['value']:.2f} (no interval)"
    digits = 3 if item["high"] - item["low"] < _NARROW else 2
    return f"{item['value']:.{digits}f} ({item['low']:.{digits}f} to {item['high']:.{digits}f})"
