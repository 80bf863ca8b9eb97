"""The network is of the described family, and of the size that is claimed."""

from typing import Any

import numpy as np
import pytest

from shared.manifest import InputSpec
from training.experiment import Experiment, NetworkPlan

pytestmark = [
    pytest.mark.tensorflow,
    # Keras 3.15 itself calls NumPy 2 in the old way when it reads and saves weights.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

architecture = pytest.importorskip("training.architecture")


@pytest.fixture(scope="module")
def network() -> Any:
    experiment = Experiment()
    return architecture.build_model(experiment.input, experiment.network, 3)


def test_it_fits_its_budget(network: Any) -> None:
    """Under 150 million multiply-accumulates and 0.6 million weights."""
    assert architecture.count_multiply_accumulates(network) < 150e6
    assert network.count_params() < 600_000


def test_it_takes_bytes_and_gives_probabilities(network: Any) -> None:
    """Values from 0 to 255 go in as they are: normalisation is a layer."""
    image = np.full((2, 128, 128, 3), 255, np.float32)
    rows = np.asarray(network(image))
    np.testing.assert_allclose(rows.sum(axis=1), 1.0, atol=1e-5)
    normalised = np.asarray(network.get_layer("normalise")(image))
    np.testing.assert_allclose(normalised, 1.0, atol=1e-5)


def test_it_has_the_layers_that_serving_names(network: Any) -> None:
    """Pooled features and logits can be read by name."""
    assert network.get_layer(architecture.FEATURES_LAYER).output.shape == (None, 128)
    assert network.get_layer(architecture.LOGITS_LAYER).output.shape == (None, 3)


def test_multiply_accumulates_are_counted_by_hand() -> None:
    """8 x 8 pixels, 3 to 4 channels by 3 x 3; then two small dense layers."""
    plan = NetworkPlan(filters=(4,), convolutions=(1,), dense_units=5)
    network = architecture.build_model(InputSpec(width=8, height=8, resample="box"), plan, 3)
    assert architecture.count_multiply_accumulates(network) == 8 * 8 * 9 * 3 * 4 + 4 * 5 + 5 * 3


def test_blocks_must_be_described_completely() -> None:
    """Two widths and one depth do not fit together."""
    plan = NetworkPlan(filters=(4, 8), convolutions=(1,))
    with pytest.raises(ValueError, match="Expected one count of convolutions per block"):
        architecture.build_model(InputSpec(width=8, height=8, resample="box"), plan, 3)
