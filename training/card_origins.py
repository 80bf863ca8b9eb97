"""The sections of a card about a network's use, origin and limits."""

import math
from typing import Final

from training.card_layout import Body, is_of_lc25000, is_of_recipe, table
from training.card_words import (
    CHECKLISTS,
    LIMITATIONS,
    LIMITATIONS_ELSEWHERE,
    LIMITATIONS_OF_OTHERS,
    NOT_YET_MEASURED,
    OUT_OF_SCOPE,
    REFERENCES,
    SOURCES,
    USE,
)
from training.terms import NOTICE_NAME

#: What a cluster is, unless a list says whose images are drawn together.
_COPIES: Final = "copies of one source tile"
_GIVEN: Final = "kept together, as a list says or as copies that were found"


def use_section(_: Body) -> str:
    """Return what the network is for, with what it is not."""
    scope = "\n".join(f"- {line}" for line in OUT_OF_SCOPE)
    return f"**Research use only, not for diagnostic use.**\n\n{USE}\n\nOut of scope:\n\n{scope}"


def data_section(body: Body) -> str:
    """Return what the figures were measured on."""
    facts = body["provenance"]
    if "patients" in facts:
        return _patients(body)
    rows = [[name, item["tiles"], item["clusters"]] for name, item in facts["classes"].items()]
    cluster = facts.get("cluster_is", _COPIES if is_of_lc25000(body) else _GIVEN)
    return (
        f"## Data\n\n{facts['tiles']} tiles of {facts['clusters']} clusters (all {cluster});"
        f" {facts['identical_files']} files are byte-identical copies of another, and such files keep their"
        f" clusters together, which leaves {facts['groups']} groups. sha256 of all paths, classes, clusters"
        f" and contents: `{facts['dataset_sha256']}`.\n\n{table(['class', 'tiles', 'clusters'], rows)}"
    )


def _patients(body: Body) -> str:
    facts = body["provenance"]
    rows = [[name, item["tiles"], item["clusters"]] for name, item in facts["classes"].items()]
    shares = ", ".join(f"{name} {share:.2f}" for name, share in body["by_resolution"].items())
    return (
        f"## Data\n\n{facts['images']} images of {facts['patients']} patients, each cut into tiles of 400"
        f" pixels, whose probabilities are averaged. A cluster on this page is a patient. Accuracy by"
        f" magnification: {shares}.\n\n{table(['class', 'images', 'patients'], rows)}"
    )


def network_section(body: Body) -> str:
    """Return size, speed, training time, versions."""
    facts = body["provenance"]
    network, software = facts["network"], facts["software"]
    rows = [
        ["weights", f"{network['parameters']:,}"],
        ["multiply-accumulates a tile", f"{network['multiply_accumulates']:,}"],
        ["file", f"{network['weights_bytes']:,} bytes"],
        [f"one tile, {network['cpu_cores']} CPU cores", f"{network['milliseconds_one_tile']} ms"],
        ["a tile, sixteen at once", f"{network['milliseconds_a_tile_of_sixteen']} ms"],
    ]
    if facts.get("fold_seconds"):
        rows.append(["training, each fold", f"{math.ceil(max(facts['fold_seconds']) / 60)} min at most"])
    if facts.get("trained_with"):
        rows.append(["trained with", facts["trained_with"]])
    rows.append(["figures made with", ", ".join(f"{name} {version}" for name, version in software.items())])
    return f"## Network\n\n{table(['', ''], rows)}"


def end_section(body: Body) -> str:
    """Return what is not known; of the set that the words are about with the checklists' answers, too."""
    if not is_of_recipe(body):
        limits = "\n".join(f"- {line}" for line in LIMITATIONS_ELSEWHERE)
        return f"## Limits\n\n{limits}\n\n## Sources\n\n{SOURCES}"
    if not is_of_lc25000(body):
        limits = "\n".join(f"- {line}" for line in LIMITATIONS_OF_OTHERS)
        return (
            f"## Limits\n\n{limits}\n\n## Not yet measured\n\n{NOT_YET_MEASURED}\n\n"
            f"## Sources\n\n{NOTICE_NAME}, beside this card."
        )
    limits = "\n".join(f"- {line}" for line in LIMITATIONS)
    lists = [f"### {name}\n\n{table(['item', 'where'], rows)}" for name, rows in CHECKLISTS.items()]
    return "\n\n".join(
        [
            f"## Limits\n\n{limits}",
            f"## Not yet measured\n\n{NOT_YET_MEASURED}",
            f"## For comparison\n\n{REFERENCES}",
            "## Where the checklists are answered",
            *lists,
            f"## Sources\n\n{SOURCES}",
        ]
    )
