"""Write a model card from measured figures alone; only the words around them are typed by hand."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from training.card_words import (
    CHECKLISTS,
    FIGURE_NAMES,
    LIMITATIONS,
    NOT_YET_MEASURED,
    OUT_OF_SCOPE,
    REFERENCES,
    SOURCES,
    USE,
)
from training.listing import CLASS_NAMES

Body = Mapping[str, Any]
#: An interval narrower than this leaves a third decimal with a meaning.
_NARROW: Final = 0.02


def render_card(body: Body, title: str) -> str:
    """Return the card as Markdown; `body` is what `evaluate` wrote into metrics.json."""
    sections: Sequence[Callable[[Body], str]] = (
        _use,
        _headline,
        _leaky,
        _which_figures,
        _data,
        _classes,
        _folds,
        _calibration,
        _floors,
        _robustness,
        _gates,
        _failures,
        _network,
        _end,
    )
    parts = [f"# {title}", *(section(body) for section in sections)]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def interval(item: Mapping[str, float]) -> str:
    """Return a figure with its interval, with no more decimals than the interval gives a meaning to."""
    if any(value is None or math.isnan(value) for value in item.values()):
        return "not defined"
    digits = 3 if item["high"] - item["low"] < _NARROW else 2
    return f"{item['value']:.{digits}f} ({item['low']:.{digits}f} to {item['high']:.{digits}f})"


def _use(_: Body) -> str:
    scope = "\n".join(f"- {line}" for line in OUT_OF_SCOPE)
    return f"**Research use only, not for diagnostic use.**\n\n{USE}\n\nOut of scope:\n\n{scope}"


def _headline(body: Body) -> str:
    figures, once = body["figures"], body["one_per_cluster"]
    rows = [
        [words, interval(figures[name]), interval(once[name])]
        for name, words in FIGURE_NAMES.items()
        if name in figures
    ]
    text = (
        f"Mean of the folds; in brackets where 95 of 100 draws of other clusters would lie ({body['draws']:,}"
        " draws of whole clusters within each fold). A figure without a single error has no width there,"
        " though with n clusters up to 3 in n could still fail. The last column counts each source tile"
        " once, however many copies it has."
    )
    return f"## Figures\n\n{text}\n\n{table(['', 'all tiles', 'one image per cluster'], rows)}"


def _leaky(body: Body) -> str:
    if "leaky" not in body:
        return ""
    leaky = body["leaky"]
    title = "## What a leak would make of it"
    if leaky is None:
        return f"{title}\n\nNot measured: `train --leaky` fits the same recipe on a split by image."
    rows = [
        [FIGURE_NAMES[name], interval(body["figures"][name]), interval(item)]
        for name, item in leaky["figures"].items()
    ]
    text = (
        f"The same recipe, fitted once on {leaky['train_tiles']} images drawn without a look at their"
        f" clusters and scored on the other {leaky['test_tiles']}, of which {leaky['copies_in_training']:.1%}"
        " have a copy among those that it was fitted on. What it has over the first column is memory, not"
        " diagnosis. Nothing of this run is released."
    )
    return f"{title}\n\n{text}\n\n{table(['', 'by cluster', 'by image: leaky'], rows)}"


def _which_figures(body: Body) -> str:
    if body["kind"] != "cross-validation":
        return ""
    return (
        "Every figure on this page is that of the *recipe*: each tile is answered by weights that never saw"
        " its cluster. The released weights are the same recipe fitted on all clusters at hand, so none of"
        " these tiles can score them; what is said of size, speed and images from elsewhere is measured on"
        " them."
    )


def _data(body: Body) -> str:
    facts = body["provenance"]
    if "patients" in facts:
        return _patients(body)
    rows = [[name, item["tiles"], item["clusters"]] for name, item in facts["classes"].items()]
    return (
        f"## Data\n\n{facts['tiles']} tiles of {facts['clusters']} clusters (all copies of one source tile);"
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


def _classes(body: Body) -> str:
    figures = body["figures"]
    rows = [
        [name, *(interval(figures[f"{kind}_{name}"]) for kind in ("precision", "recall", "f1"))]
        for name in CLASS_NAMES
    ]
    counts = [[f"**{name}**", *row] for name, row in zip(CLASS_NAMES, body["confusion"], strict=True)]
    return "\n\n".join(
        [
            "## By class",
            table(["class", "precision", "recall", "F1"], rows),
            "Truth by row, answer by column, all folds together:",
            table(["", *CLASS_NAMES], counts),
            "![Confusion](plots/confusion.png)",
        ]
    )


def _folds(body: Body) -> str:
    facts = body["provenance"]
    if not facts.get("folds"):
        return ""
    rows = [
        [
            number + 1,
            fold["test_clusters"],
            fold["test_tiles"],
            f"{scores['accuracy']:.3f}",
            f"{scores['lowest_recall']:.3f}",
            f"{scores['auroc_aca_against_scc']:.3f}",
            f"`{fold['digest'][:16]}`",
        ]
        for number, (fold, scores) in enumerate(zip(facts["folds"], body["folds"], strict=True))
    ]
    worst = min(scores["accuracy"] for scores in body["folds"])
    header = ["fold", "clusters", "tiles", "accuracy", "lowest recall", "aca against scc", "sha256 begins"]
    text = (
        f"Folds are dealt by cluster from seed {facts['split_seed']}, trained from seed {facts['seed']} for"
        f" {facts['epochs']} epochs with nothing chosen on held-out clusters. That no cluster and no"
        f" byte-identical file lies on both sides is asserted before training. The worst fold: {worst:.3f}."
    )
    return f"## Folds\n\n{text}\n\n{table(header, rows)}"


def _calibration(body: Body) -> str:
    part = body["calibration"]
    rows = [
        [words, f"{part['before'][name]:.3f}", f"{part['after'][name]:.3f}"]
        for name, words in (("ece", "ECE, 15 bins"), ("brier", "Brier"), ("nll", "negative log likelihood"))
    ]
    return "\n\n".join(
        [
            "## Calibration",
            "One temperature, fitted on other clusters than those it is scored on (for a fold: on the other"
            " folds' answers).",
            table(["", "before", "after"], rows),
            f"Over the `indeterminate` threshold: {part['coverage_classified']:.1%} of the answers, of which"
            f" {part['accuracy_classified']:.1%} are right.",
            "![Reliability](plots/reliability.png) ![Risk and coverage](plots/risk-coverage.png)",
        ]
    )


def _floors(body: Body) -> str:
    if "floors" not in body:
        return ""
    floors = body["floors"]
    if floors is None:
        return "## Without looking at tissue\n\nToo few groups to fit anything on: not measured."
    names = (
        ("colour_mean_sd", "six numbers: mean and SD of R, G, B; softmax regression"),
        ("colour_histograms", "the same and 8-bin colour histograms"),
        ("nearest_neighbour", "those numbers, nearest neighbour"),
    )
    rows = [[words, f"{floors[name]:.3f}", f"{floors[name + '_leaky']:.3f}"] for name, words in names]
    rows.append(["a corner of 20 x 20 in 224 x 224 px, mean and SD", f"{floors['corner']:.3f}", ""])
    rows.append(
        [
            "labels shuffled by cluster (a third is chance)",
            f"{floors['label_shuffle']:.3f}",
            f"{floors['label_shuffle_leaky']:.3f}",
        ]
    )
    text = (
        "What colours alone score on the same folds, and what a split by *image* makes of it. The leaky"
        " column is no figure of the network: it shows that with copies on both sides even a nearest"
        " neighbour in colour seems to know the diagnosis, and even shuffled labels."
    )
    return f"## Without looking at tissue\n\n{text}\n\n{table(['', 'by cluster', 'by image: leaky'], rows)}"


def _robustness(body: Body) -> str:
    if "robustness" not in body:
        return ""
    rows = [
        [
            record["change"],
            interval({"value": record["accuracy"], "low": record["low"], "high": record["high"]}),
            f"{record['lowest_recall']:.3f}",
            f"{record['agreement']:.3f}",
        ]
        for record in body["robustness"]
    ]
    symmetry = body["symmetry"]
    return "\n\n".join(
        [
            "## Under changes",
            f"{body['tiles_changed']} tiles, {body['copies_changed']} of each cluster, each by weights that"
            " never saw its cluster. Twice as small is shown by mirroring the tile around itself, twice as"
            " large by its middle; 768 px are enlarged from the tile, as originals of that size are not at"
            " hand.",
            table(["change", "accuracy", "lowest recall", "same class as before"], rows),
            f"Eight flips and quarter turns: {symmetry['views_that_agree']:.3f} of the views get the class of"
            f" the tile as it is; in {symmetry['tiles_whose_eight_views_agree']:.3f} of the tiles all eight"
            " do.",
            "![Under changes](plots/robustness.png)",
        ]
    )


def _gates(body: Body) -> str:
    if "known_flags" not in body:
        return ""
    known, foreign = body["known_flags"], body["foreign"]
    text = "Share of tiles with each flag, one word per gate, never one number."
    if foreign is None:
        rows = [[word, f"{share:.3f}"] for word, share in sorted(known.items())]
        return f"## Gates\n\n{text}\n\n{table(['flag', 'these tiles'], rows or [['none', '']])}"
    words = sorted({*known, *foreign["rates"]})
    rows = [[word, f"{known.get(word, 0):.3f}", f"{foreign['rates'].get(word, 0):.2f}"] for word in words]
    images = [[record["file"], record["flags"] or "none"] for record in foreign["images"]]
    return "\n\n".join(
        [
            "## Gates",
            f"{text} {_feature_space(body)}",
            table(["flag", "these tiles", f"{len(images)} images from elsewhere"], rows),
            table(["image from elsewhere", "flags"], images),
        ]
    )


def _feature_space(body: Body) -> str:
    above = body.get("unfamiliar_above")
    gate = (
        "This version has no gate in its feature space"
        if above is None
        else "`unfamiliar` is a Mahalanobis distance of the network's pooled features over"
        f" {above:.1f} to the nearest class of its training tiles"
    )
    return (
        f"{gate}; `low_energy` (log of the summed exponentials of the logits under"
        f" {body['energy_below']:.2f}, which 1 in 100 of these tiles is) is not served and is here for"
        " comparison."
    )


def _failures(body: Body) -> str:
    records = body["failures"]
    if not records:
        return "## Failures\n\nNo tile was answered wrongly."
    rows = [
        [
            record["cluster"],
            record["taken_for"],
            f"{record['wrong']} of {record['tiles']}",
            ", ".join(f"{value:.2f}" for value in record["mean_probabilities"]),
            f"`{record['worst_tile']}`",
        ]
        for record in records
    ]
    header = ["cluster", "taken for", "tiles wrong", f"mean of {', '.join(CLASS_NAMES)}", "worst tile"]
    text = "Every cluster with a wrong answer, the worst first, by name: no image of a patient is shown here."
    return f"## Failures\n\n{text}\n\n{table(header, rows)}"


def _network(body: Body) -> str:
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
        rows.append(["training, each fold", f"{max(facts['fold_seconds']) / 60:.0f} min at most"])
    rows.append(["made with", ", ".join(f"{name} {version}" for name, version in software.items())])
    return f"## Network\n\n{table(['', ''], rows)}"


def _end(body: Body) -> str:
    del body
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
