"""Changed tiles are scored by weights that never saw them, and compared with the tile as it is."""

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.manifest import InputSpec
from training.perturbations import changes

pytestmark = pytest.mark.tensorflow

robustness = pytest.importorskip("training.robustness")

SPEC = InputSpec(width=16, height=16, resample="box")
#: Two tiles of each class, in six groups.
LABELS = np.array([0, 0, 1, 1, 2, 2])
GROUPS = np.arange(6)


def read_tile(row: int) -> NDArray[np.uint8]:
    """Return a tile whose colour is its class: red, green or blue, a little noisy."""
    noise = np.random.default_rng(row).integers(0, 30, (48, 48, 3))
    noise[..., LABELS[row]] += 150
    return noise.astype(np.uint8)


def by_colour(inputs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Answer with the strongest channel."""
    means: NDArray[np.float32] = inputs.mean(axis=(1, 2)).astype(np.float32)
    return means


def always_the_next(inputs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Be wrong about everything."""
    return np.roll(by_colour(inputs), 1, axis=1)


def measure(*parts: tuple[object, list[int]]) -> dict[str, dict]:
    """Return the records by the name of their change."""
    listed = [(forward, np.array(rows)) for forward, rows in parts]
    records = robustness.measure_changes(listed, read_tile, SPEC, LABELS, GROUPS, report=lambda _: None)
    return {record["change"]: record for record in records}


def test_every_change_is_measured_after_the_tile_as_it_is() -> None:
    """In the card's order, nothing left out."""
    assert list(measure((by_colour, [0, 2, 4]))) == ["as it is", *changes()]


def test_a_model_of_colours_fails_on_grey_and_nowhere_near() -> None:
    """The figures follow the answers: grey takes everything from it, JPEG and blur nothing."""
    records = measure((by_colour, list(range(6))))
    for name in ("as it is", "JPEG quality 30", "blur, SD 2.0 px", "scale x 2.0", "768 to 224 px, nearest"):
        assert (records[name]["accuracy"], records[name]["agreement"]) == (1.0, 1.0), name
        assert records[name]["lowest_recall"] == 1.0
    # All three channels are equal then, and the first is taken: one class of three is right.
    grey = records["grey"]
    assert (grey["accuracy"], grey["lowest_recall"]) == (pytest.approx(1 / 3, abs=1e-4), 0.0)
    assert grey["agreement"] == pytest.approx(1 / 3, abs=1e-4)
    assert grey["low"] <= grey["accuracy"] <= grey["high"]


def test_each_tile_is_answered_by_the_weights_that_never_saw_it() -> None:
    """Parts keep their own rows: what is wrong about two of six tiles is right about the others."""
    records = measure((always_the_next, [1, 4]), (by_colour, [0, 2, 3, 5]))
    assert records["as it is"]["accuracy"] == pytest.approx(4 / 6, abs=1e-4)
    assert records["as it is"]["lowest_recall"] == 0.5
    # Wrong is not unstable: it says the same of the changed tile.
    assert records["JPEG quality 95"]["agreement"] == 1.0


def test_chance_depends_on_the_tile_and_not_on_its_company() -> None:
    """A tile gets the same noise alone and among others, so that a figure can be made again."""
    seen: list[NDArray[np.uint8]] = []

    def spy(inputs: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(inputs)
        return by_colour(inputs)

    measure((spy, [1, 3, 5]))
    few, seen = seen, []
    measure((spy, list(range(6))))
    assert len(few) == len(seen) == len(changes()) + 1
    for some, everything in zip(few, seen, strict=True):
        np.testing.assert_array_equal(some, everything[1::2])


def in_a_corner(inputs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Answer with the class of the upper left pixel's strongest channel."""
    return inputs[:, 0, 0].astype(np.float32)


def symmetry(forward: object) -> dict[str, float]:
    """Return the figures for tiles with their class's colour in one corner and the next class's elsewhere."""
    inputs = np.zeros((6, 16, 16, 3), np.uint8)
    for row, label in enumerate(LABELS):
        inputs[row, ..., (label + 1) % 3] = 100
        inputs[row, 0, 0] = 0
        inputs[row, 0, 0, label] = 200
    result: dict[str, float] = robustness.measure_symmetry([(forward, np.arange(6))], inputs, LABELS, GROUPS)
    return result


def test_who_looks_at_a_corner_is_found_out_by_turning() -> None:
    """The corner comes to its place in two of eight views, one of them the tile as it is."""
    figures = symmetry(in_a_corner)
    assert figures["views_that_agree"] == pytest.approx(1 / 7)
    assert figures["tiles_whose_eight_views_agree"] == 0.0
    assert figures["mean_accuracy_of_the_views"] == pytest.approx(2 / 8)


def test_who_looks_at_the_whole_is_not_moved_by_turning() -> None:
    """All views agree; that they are wrong is another figure's affair."""
    figures = symmetry(by_colour)
    assert figures["views_that_agree"] == figures["tiles_whose_eight_views_agree"] == 1.0
    assert figures["tiles_whose_eight_views_agree_low"] == 1.0
    assert figures["mean_accuracy_of_the_views"] == 0.0


def test_a_few_tiles_of_each_group_are_chosen_and_always_the_same() -> None:
    """At most so many, all where there are fewer, in the order of the rows."""
    groups = np.array([7] * 10 + [3] + [5] * 4)
    rows = robustness.choose_rows(groups, 3)
    assert np.bincount(groups[rows], minlength=8)[[7, 3, 5]].tolist() == [3, 1, 3]
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, robustness.choose_rows(groups, 3))
