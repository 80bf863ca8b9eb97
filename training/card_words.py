"""The words of a model card that no measurement changes: use, limits, sources, checklists."""

from collections.abc import Mapping, Sequence
from typing import Final

#: What each figure is called, in the card's order.
FIGURE_NAMES: Final[Mapping[str, str]] = {
    "accuracy": "accuracy",
    "lowest_recall": "lowest class recall",
    "macro_auroc": "macro AUROC",
    "auroc_aca_against_scc": "adenocarcinoma against squamous, AUROC",
    "auroc_cancer": "cancer against benign, AUROC",
    "sensitivity_at_95_specificity": "sensitivity for cancer at 95 % specificity",
    "sensitivity_at_99_specificity": "sensitivity for cancer at 99 % specificity",
    "coverage_at_99_accuracy": "coverage at 99 % selective accuracy",
    "ece": "calibration error (ECE, 15 bins)",
    "brier": "Brier score",
    "nll": "negative log likelihood",
}
USE: Final = (
    "It tells square tiles of H&E-stained lung tissue (about 0.35 to 0.6 micrometres per pixel at 224 pixels)"
    " apart: benign (`lung_n`), adenocarcinoma (`lung_aca`), squamous cell carcinoma (`lung_scc`). For"
    " research on serving, calibration and failure of such models; no decision about a patient may rest on"
    " it."
)
OUT_OF_SCOPE: Final[Sequence[str]] = (
    "whole slides as one image: cut them into tiles first",
    "cytology, frozen sections, immunohistochemistry and other stains",
    "other organs, metastases, and tumours beside the two, small-cell carcinoma among them: each gets one of"
    " the three classes all the same",
    "grading, staging, prognosis",
)
LIMITATIONS: Final[Sequence[str]] = (
    "A cluster is a tile and not a patient. LC25000 names no patients, so tiles of one patient may lie on"
    " both sides: even a figure by cluster is optimistic.",
    "One institution, one preparation, one camera. The classes differ in stain and colour, so part of every"
    " figure is colour: read it beside the floor.",
    "Only the tiles under Data were at hand: what the published set has beyond them took no part.",
    "No external validation yet. Nearly every image from elsewhere is flagged `out_of_domain`, and flags"
    " are no proof of sense.",
    "No age, sex, ethnicity or stage is known, so nothing can be said about fairness.",
    "The truth is the label of the published set, made by its authors; how sure they were is not known.",
    "Magnification is not stated in the set and was inferred.",
)
#: Of a version that was trained on other tiles, of which nothing is known here.
LIMITATIONS_OF_OTHERS: Final[Sequence[str]] = (
    "Where these tiles come from was not looked at; what is known of it stands in NOTICE, beside this card.",
    "Whether a cluster is a tile, a slide or a patient is for whoever named the clusters to say. Where tiles"
    " of one patient lie on both sides every figure is optimistic.",
    "The classes may differ in stain and camera, so part of every figure may be colour: read it beside the"
    " floor.",
    "The truth is the label that the tiles came with; how sure it was is not known.",
    "No age, sex, ethnicity or stage is known, so nothing can be said about fairness.",
)
#: Of a published version on somebody's own images: what LC25000 limits stands in the version's own card.
LIMITATIONS_ELSEWHERE: Final[Sequence[str]] = (
    "Whether the weights were fitted on some of these images, or on copies of them, is not checked one by"
    " one: such images would be answered better than new ones.",
    "The truth is the label that the images came with; how sure it is was not asked.",
    "No age, sex, ethnicity or stage is known, so nothing can be said about fairness.",
    "What the version was made from, and what limits it by that, stands in its own card.",
)
NOT_YET_MEASURED: Final = (
    "LungHist700 (another institution, 1600 x 1200 pixels, seven classes onto three, patients known):"
    " `python -m training evaluate --model MODEL --data FOLDER --layout lunghist700` cuts each image into"
    " twelve tiles of 400, averages their probabilities and draws patients; it is tested on drawn images and"
    " has not been run on the real ones."
)
REFERENCES: Final = """\
Accuracy on a split by cluster, from LC25000-clean (see Sources); other splits than those above. What
colours alone score here stands under "Without looking at tissue".

| | |
|---|---|
| ImageNet ResNet18, frozen, linear probe | 0.943 |
| Phikon, 86 million weights, nearest neighbour | 0.993 |
| UNI, 303 million weights, nearest neighbour | 0.994 |"""
SOURCES: Final = (
    "LC25000: Borkowski, Bui, Thomas, Wilson, DeLand, Mastorides 2019, arXiv:1912.12142v1. Clusters:"
    " LC25000-clean, Batchkala, Li, Rittscher 2024, doi 10.1007/978-3-031-73748-0_2, CC BY 4.0. The weights"
    " are under CC BY-SA 4.0."
)
_CLAIM: Final = (
    ("1 to 4 title, summary, background, aims", "top, Figures"),
    ("5, 6 design and goal", "retrospective, on a public set; three classes: top"),
    ("7, 8 sources, eligibility", "Data, Sources; every readable tile at hand"),
    (
        "9 to 13 preprocessing, subsets, elements, de-identification, missing data",
        "docs/explanation/model.md, Data",
    ),
    (
        "14 to 18 reference standard, its source and variability",
        "Limits: the set's own labels, variability unknown",
    ),
    ("19 sample size", "Data: all clusters at hand"),
    ("20, 21 partitions and their disjointness", "Folds: by cluster, not by patient"),
    ("22 to 24 model, software, initialisation", "Network, docs/explanation/model.md"),
    (
        "25 to 27 training, choice of the model, ensembles",
        "Folds; docs/explanation/model.md: how the recipe was chosen, and what of it is averaged",
    ),
    ("28, 29 metrics and uncertainty", "Figures"),
    ("30 robustness", "Under changes"),
    ("31 explainability", "not part of this card"),
    ("32 external data", "Not yet measured"),
    ("33, 34 flow and demographics", "Data; demographics unknown"),
    ("35, 36 performance and its precision", "Figures, By class, Folds"),
    ("37 failures", "Failures"),
    ("38, 39 limits, implications", "Limits, top"),
    ("40 to 42 registration, protocol, funding", "none"),
)
_GMLP: Final = (
    ("1 expertise through the whole life", "Limits: no clinical partner"),
    ("2 software engineering and security", "CONTRIBUTING.md, digests in the manifest"),
    ("3 data represent the intended patients", "Limits: they do not"),
    ("4 training and test are independent", "Folds"),
    ("5 the best available reference standard", "Limits"),
    ("6 design fits data and use", "Network, Without looking at tissue"),
    ("7 the human and the model as a team", "`indeterminate`, flags; not studied"),
    ("8 tested under relevant conditions", "Under changes; not in a clinic"),
    ("9 clear information for users", "this card"),
    ("10 watched after release", "every result has its verdict and its flags; nothing counts or retrains"),
)
CHECKLISTS: Final[Mapping[str, Sequence[tuple[str, str]]]] = {
    "CLAIM (Mongan, Moy, Kahn 2020)": _CLAIM,
    "Good Machine Learning Practice (FDA, Health Canada, MHRA 2021)": _GMLP,
}
