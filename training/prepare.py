"""Check a data folder before hours are spent on it: files, classes, copies, and the decoded tiles."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from shared.manifest import InputSpec
from training.dataset import (
    Tile,
    build_tiles,
    decode_file,
    digest_files,
    load_images,
    prepared_list,
)
from training.grouping import Agreement, compare_groupings, group_copies
from training.listing import CLASS_NAMES, NOTABLE_IMBALANCE, imbalance, list_files, write_list
from training.reading import read_files
from training.rings import ring_spectrum

Report = Callable[[str], None]


def prepare_folder(
    folder: Path,
    cache: Path,
    spec: InputSpec,
    skip_unreadable: bool = False,
    report: Report = print,
    to_train: bool = True,
) -> tuple[Tile, ...]:
    """Decode every tile once into `cache`, group copies where no list does, and return the usable tiles.

    What was found (groups, and which files were left out) is kept in `cache` for the commands that follow.

    Raises:
        TrainingError: if the folder cannot be used, or not trained on where it is `to_train`; the text names
            what must change.
    """
    files = list_files(folder, to_train)
    digests = digest_files(folder, files)
    kept, spectra = read_files(folder, files, lambda image, _: ring_spectrum(image), skip_unreadable, report)
    usable, usable_digests = [files[row] for row in kept], [digests[row] for row in kept]
    if any(file.cluster is None for file in usable):
        report(f"no list of copies in {folder}: grouping {len(usable)} tiles")
        groups = group_copies(np.stack(spectra), [file.class_name for file in usable], usable_digests, report)
        usable = [replace(file, cluster=group) for file, group in zip(usable, groups, strict=True)]
    tiles = build_tiles(usable, usable_digests)
    path = prepared_list(cache, files, digests)
    if usable != list(files):
        write_list(path, usable)
    else:
        path.unlink(missing_ok=True)  # a file that was left out before can be read now
    load_images(folder, tiles, spec, cache, report)
    _describe(tiles, report)
    return tiles


def check_grouping(folder: Path, tiles: Sequence[Tile], report: Report = print) -> Agreement:
    """Group tiles whose clusters are known as if they were not, and return how well that went."""
    spectra = np.stack([ring_spectrum(decode_file(folder, tile.path)) for tile in tiles])
    classes, digests = [tile.class_name for tile in tiles], [tile.sha256 for tile in tiles]
    groups = group_copies(spectra, classes, digests, report)
    return compare_groupings(groups, [tile.cluster for tile in tiles])


def _describe(tiles: Sequence[Tile], report: Report) -> None:
    for name in CLASS_NAMES:
        clusters = Counter(tile.cluster for tile in tiles if tile.class_name == name)
        report(f"{name}: {clusters.total()} tiles of {len(clusters)} clusters")
    share = imbalance([tile.class_name for tile in tiles])
    if share > NOTABLE_IMBALANCE:
        report(f"warning: the largest class has {share:.1f} times the tiles of the smallest")
    identical = len(tiles) - len({tile.sha256 for tile in tiles})
    report(f"{identical} tiles are byte-identical copies of another")
