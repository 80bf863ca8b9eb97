"""Group the tiles that are copies of one source tile, where no list says so."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.registration import candidates, correlate
from training.rings import Spectrum

#: Agreement from which two tiles are copies: measured on known clusters, see docs/explanation/model.md.
SAME_SOURCE: Final = 0.52
#: Likeliest copies of each tile that are compared in full; a source tile has about 20 copies.
CANDIDATES: Final = 24
#: Pairs compared at once; between two chunks, pairs that are already in one group are dropped.
_CHUNK: Final = 1000


@dataclass(frozen=True)
class Agreement:
    """How a grouping compares with the known one, over all pairs of tiles."""

    #: Of the pairs put together, the share that belongs together.
    precision: float
    #: Of the pairs that belong together, the share that was put together.
    recall: float
    groups: int
    known_groups: int


def group_copies(
    spectra: Spectrum,
    class_names: Sequence[str],
    sha256: Sequence[str],
    report: Callable[[str], None] = print,
) -> list[str]:
    """Return a group name per tile; tiles are compared within a class, and identical files are always one.

    Groups are chained: a copy of a copy is a copy. Two copies that share too little to be compared meet by
    way of those between them; but one false pair joins two whole groups, so the threshold is a high one.
    """
    parents = list(range(len(spectra)))
    _join_equal(parents, list(zip(class_names, sha256, strict=True)))
    names = np.array(class_names)
    for class_name in dict.fromkeys(class_names):
        rows = np.flatnonzero(names == class_name)
        report(f"{class_name}: comparing {len(rows)} tiles")
        _join_copies(parents, rows, spectra)
    roots = [_root(parents, row) for row in range(len(spectra))]
    return _name_groups(roots, class_names)


def compare_groupings(received: Sequence[str], known: Sequence[str]) -> Agreement:
    """Return pair precision and recall of a grouping; where there is no pair at all, they are 1."""
    together = _pairs(zip(received, known, strict=True))
    put_together, belonging = _pairs(received), _pairs(known)
    return Agreement(
        precision=together / put_together if put_together else 1.0,
        recall=together / belonging if belonging else 1.0,
        groups=len(set(received)),
        known_groups=len(set(known)),
    )


def _join_equal(parents: list[int], keys: Sequence[Hashable]) -> None:
    first: dict[Hashable, int] = {}
    for row, key in enumerate(keys):
        parents[_root(parents, row)] = _root(parents, first.setdefault(key, row))


def _join_copies(parents: list[int], rows: NDArray[np.int64], spectra: Spectrum) -> None:
    if len(rows) < 2:
        return
    pairs, _ = candidates(spectra[rows], CANDIDATES)
    pairs = rows[pairs]
    while len(pairs):
        apart = np.array([_root(parents, a) != _root(parents, b) for a, b in pairs[:_CHUNK]], bool)
        chunk, pairs = pairs[:_CHUNK][apart], pairs[_CHUNK:]
        agreement = correlate(spectra[chunk[:, 0]], spectra[chunk[:, 1]])
        for first, second in chunk[agreement >= SAME_SOURCE]:
            parents[_root(parents, first)] = _root(parents, second)


def _root(parents: list[int], row: int) -> int:
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row


def _name_groups(roots: Sequence[int], class_names: Sequence[str]) -> list[str]:
    numbers: Counter[str] = Counter()
    names: dict[int, str] = {}
    for root, class_name in zip(roots, class_names, strict=True):
        if root not in names:
            names[root] = f"{class_name}-{numbers[class_name]:04}"
            numbers[class_name] += 1
    return [names[root] for root in roots]


def _pairs(values: Iterable[Hashable]) -> int:
    return sum(count * (count - 1) // 2 for count in Counter(values).values())
