"""The sections of a card about how good the answers are."""

from training.card_layout import Body, interval, is_of_lc25000, is_of_recipe, table
from training.card_words import FIGURE_NAMES
from training.listing import CLASS_NAMES


def headline_section(body: Body) -> str:
    """Return every figure with its interval."""
    figures, once = body["figures"], body["one_per_cluster"]
    rows = [
        [words, interval(figures[name]), interval(once[name])]
        for name, words in FIGURE_NAMES.items()
        if name in figures
    ]
    first, within = ("Mean of the folds; in", " within each fold") if is_of_recipe(body) else ("In", "")
    once_each = (
        "source tile once, however many copies"
        if is_of_lc25000(body)
        else "cluster once, however many images"
    )
    text = (
        f"{first} brackets where 95 of 100 draws of other clusters would lie ({body['draws']:,}"
        f" draws of whole clusters{within}). A figure without a single error has no width there,"
        f" though with n clusters up to 3 in n could still fail. The last column counts each {once_each}"
        " it has."
    )
    return f"## Figures\n\n{text}\n\n{table(['', 'all tiles', 'one image per cluster'], rows)}"


def leaky_section(body: Body) -> str:
    """Return what a split by image would have made of the figures, or that nobody measured it."""
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


def which_figures_section(body: Body) -> str:
    """Return which weights the figures are of."""
    if not is_of_recipe(body):
        facts = body["provenance"]
        known = (
            " **These are the very tiles that its weights were fitted on: no figure here is one of new"
            " tiles.**"
            if facts.get("fitted_on_these")
            else ""
        )
        return (
            f"Every figure on this page is that of the published version {facts['model']}, weights"
            f" `{facts['weights_sha256']}`.{known} Images that a gate would reject are scored here too: a"
            " worker gives them no class."
        )
    return (
        "Every figure on this page is that of the *recipe*: each tile is answered by weights that never saw"
        " its cluster. The released weights are the same recipe fitted on all clusters at hand, so none of"
        " these tiles can score them; what is said of size, speed and images from elsewhere is measured on"
        " them."
    )


def classes_section(body: Body) -> str:
    """Return precision, recall and F1 by class, with the confusion matrix."""
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
            f"Truth by row, answer by column{', all folds together' if is_of_recipe(body) else ''}:",
            table(["", *CLASS_NAMES], counts),
            "![Confusion](plots/confusion.png)",
        ]
    )


def folds_section(body: Body) -> str:
    """Return each fold with its digest; nothing where there are none."""
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
        f" {facts['epochs']} epochs; within a fold nothing is chosen on its held-out clusters. That no"
        " cluster and no byte-identical file lies on both sides is asserted before training. The worst fold:"
        f" {worst:.3f}. Where the recipe itself was chosen by comparing others on these same folds, as that"
        " of the bundled model was (docs/explanation/model.md), its figures are optimistic by what that"
        " choice gained; no third set of clusters took part in it."
    )
    return f"## Folds\n\n{text}\n\n{table(header, rows)}"


def calibration_section(body: Body) -> str:
    """Return what a temperature changed, with the share of answers over the threshold."""
    part = body["calibration"]
    rows = [
        [words, f"{part['before'][name]:.3f}", f"{part['after'][name]:.3f}"]
        for name, words in (("ece", "ECE, 15 bins"), ("brier", "Brier"), ("nll", "negative log likelihood"))
    ]
    right = f", of which {part['accuracy_classified']:.1%} are right" if part["coverage_classified"] else ""
    return "\n\n".join(
        [
            "## Calibration",
            "One temperature, fitted on other clusters than those it is scored on (for a fold: on the other"
            " folds' answers). All folds together, where the figures above are means of the folds."
            if is_of_recipe(body)
            else f"The version's own temperature, {body['provenance']['temperature']}.",
            table(["", "before", "after"], rows),
            f"Over the `indeterminate` threshold: {part['coverage_classified']:.1%} of the answers{right}.",
            "![Reliability](plots/reliability.png) ![Risk and coverage](plots/risk-coverage.png)",
        ]
    )
