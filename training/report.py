"""Write what was measured into a folder: metrics.json, plots, and the card."""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from training.card import render_card
from training.checkpoint import write_whole
from training.errors import TrainingError
from training.plots import draw_confusion, draw_reliability, draw_risk_coverage, draw_robustness
from training.study import Verdicts

METRICS_NAME: Final = "metrics.json"
CARD_NAME: Final = "card.md"
PLOTS_NAME: Final = "plots"


def write_report(folder: Path, body: Mapping[str, Any], title: str, verdicts: Verdicts) -> None:
    """Write metrics, plots and card of a folder's answers; what was there before is replaced."""
    plots = folder / PLOTS_NAME
    plots.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_without_nan(body), indent=1, allow_nan=False)
    write_whole(folder / METRICS_NAME, text)
    labels = verdicts.answers.labels
    series = {"before": (verdicts.uncalibrated, labels), "after": (verdicts.answers.probabilities, labels)}
    draw_reliability(plots / "reliability.png", series)
    draw_risk_coverage(plots / "risk-coverage.png", body["risk_coverage"])
    draw_confusion(plots / "confusion.png", body["confusion"])
    if "robustness" in body:
        draw_robustness(plots / "robustness.png", body["robustness"])
    (folder / CARD_NAME).write_text(render_card(body, title), encoding="utf-8", newline="\n")


def copy_card(report: Path, folder: Path, title: str) -> None:
    """Copy the card and its plots beside each other, under a new title: a version's folder holds plain files.

    Raises:
        TrainingError: if there is no card yet.
    """
    try:
        card = (report / CARD_NAME).read_text(encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"Expected a card: {error}. Run `evaluate` first.") from error
    _, _, rest = card.partition("\n")
    text = f"# {title}\n{rest}".replace(f"({PLOTS_NAME}/", "(")
    (folder / CARD_NAME).write_text(text, encoding="utf-8", newline="\n")
    for plot in sorted((report / PLOTS_NAME).iterdir()):
        shutil.copyfile(plot, folder / plot.name)


def _without_nan(value: Any) -> Any:
    """Return the value with None for what is not a number: JSON has no word for it."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
