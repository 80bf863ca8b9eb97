"""Write a model card from measured figures alone; only the words around them are typed by hand."""

from collections.abc import Callable, Sequence

from training.card_behaviour import failures_section, floors_section, gates_section, robustness_section
from training.card_figures import (
    calibration_section,
    classes_section,
    folds_section,
    headline_section,
    leaky_section,
    which_figures_section,
)
from training.card_layout import Body
from training.card_origins import data_section, end_section, network_section, use_section


def render_card(body: Body, title: str) -> str:
    """Return the card as Markdown; `body` is what `evaluate` wrote into metrics.json."""
    sections: Sequence[Callable[[Body], str]] = (
        use_section,
        headline_section,
        leaky_section,
        which_figures_section,
        data_section,
        classes_section,
        folds_section,
        calibration_section,
        floors_section,
        robustness_section,
        gates_section,
        failures_section,
        network_section,
        end_section,
    )
    parts = [f"# {title}", *(section(body) for section in sections)]
    return "\n\n".join(part for part in parts if part) + "\n"
