"""The sections of a card about what moves the answers."""

from training.card_layout import Body, interval, is_of_recipe, table
from training.listing import CLASS_NAMES


def floors_section(body: Body) -> str:
    """Return what colours alone score; nothing where that is not asked."""
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


def robustness_section(body: Body) -> str:
    """Return what changes of the image do; nothing where that is not measured."""
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
    unseen = ", each by weights that never saw its cluster" if is_of_recipe(body) else ""
    return "\n\n".join(
        [
            "## Under changes",
            f"{body['tiles_changed']} tiles, at most {body['copies_changed']} of each cluster"
            f"{unseen}. Twice as small is shown by mirroring the tile around itself, twice as large by its"
            " middle; 768 px are enlarged from the tile, as originals of that size are not at hand.",
            table(["change", "accuracy", "lowest recall", "same class as before"], rows),
            f"Eight flips and quarter turns: {symmetry['views_that_agree']:.3f} of the views get the class of"
            f" the tile as it is; in {symmetry['tiles_whose_eight_views_agree']:.3f} of the tiles all eight"
            " do.",
            "![Under changes](plots/robustness.png)",
        ]
    )


def gates_section(body: Body) -> str:
    """Return the share of tiles that each gate flags; nothing where that is not measured."""
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
            "Those from elsewhere have no label and are other organs, stains and laboratories, empty slides"
            " and pen marks. They test the gates, and say nothing of accuracy.",
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


def failures_section(body: Body) -> str:
    """Return every cluster with a wrong answer."""
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
