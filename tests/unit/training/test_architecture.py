"""The network is of the described family, and of the size that is claimed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.manifest import InputSpec
from training.experiment import Experiment, ExpertPlan, NetworkPlan, read_experiment

pytestmark = [
    pytest.mark.tensorflow,
    # Keras 3.15 itself calls NumPy 2 in the old way when it reads and saves weights.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

architecture = pytest.importorskip("training.architecture")


RECIPE = Path(__file__).parents[3] / "training/configs/lung-cnn-1.1.0.toml"


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


def test_the_bundled_recipe_fits_its_budget() -> None:
    """Both experts together, under 150 million multiply-accumulates and 2 million weights."""
    experiment = read_experiment(RECIPE)
    network = architecture.build_model(experiment.input, experiment.network, 3)
    assert architecture.count_multiply_accumulates(network) < 150e6
    assert network.count_params() < 2_000_000


def test_two_experts_are_mixed_by_the_gate() -> None:
    """The mean of both where the gate is open, the varied expert alone where it is shut."""
    keras = pytest.importorskip("keras")
    expert = ExpertPlan(
        stem_filters=4,
        filters=(4,),
        convolutions=(1,),
        pooled_blocks=2,
        tap_filters=4,
        colour_filters=(4, 4),
        spread=True,
        root=True,
        feature_dropout=0.5,
        dense_units=4,
    )
    plan = NetworkPlan(filters=(4,), convolutions=(1,), dense_units=4, plain=expert)
    network = architecture.build_model(InputSpec(width=16, height=16, resample="box"), plan, 3)
    names = ("varied_logits", "plain_logits", "logits")
    parts = keras.Model(network.inputs, [network.get_layer(name).output for name in names])
    image = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3)).astype(np.float32)
    gate = network.get_layer("gate_logit")
    for bias, share in ((-50.0, 0.0), (0.0, 0.25), (50.0, 0.5)):
        gate.set_weights([np.zeros_like(gate.get_weights()[0]), np.array([bias], np.float32)])
        varied, plain, mixed = (np.asarray(part) for part in parts([image]))
        assert np.abs(plain - varied).max() > 0.01
        np.testing.assert_allclose(mixed, varied + share * (plain - varied), atol=1e-5)


def test_the_spread_of_a_map_is_its_standard_deviation() -> None:
    """Beside its mean, as numpy reckons both."""
    keras = pytest.importorskip("keras")
    plan = NetworkPlan(filters=(4,), convolutions=(1,), dense_units=4, spread=True)
    network = architecture.build_model(InputSpec(width=8, height=8, resample="box"), plan, 3)
    maps, features = keras.Model(
        network.inputs,
        [network.get_layer(name).output for name in ("block1_conv1_relu", architecture.FEATURES_LAYER)],
    )([np.random.default_rng(1).integers(0, 256, (1, 8, 8, 3)).astype(np.float32)])
    values = np.asarray(maps)[0].reshape(-1, 4)
    expected = [*values.mean(axis=0), *np.sqrt(values.var(axis=0) + 1e-4)]
    np.testing.assert_allclose(np.asarray(features)[0], expected, rtol=1e-3)
