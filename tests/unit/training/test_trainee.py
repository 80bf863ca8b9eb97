"""Two experts are fitted each to its own kind of tile, and the gate to tell the kinds apart."""

from typing import Any

import numpy as np
import pytest

from shared.manifest import InputSpec
from training.experiment import AugmentPlan, Experiment, ExpertPlan, NetworkPlan, TrainPlan
from training.synthetic import draw_tile

pytestmark = [
    pytest.mark.tensorflow,
    # Keras 3.15 itself calls NumPy 2 in the old way when it reads and saves weights.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

keras = pytest.importorskip("keras")
architecture = pytest.importorskip("training.architecture")
trainee_module = pytest.importorskip("training.trainee")

SIDE = 32
EXPERT = {"filters": (4, 8), "convolutions": (1, 1), "dense_units": 8, "pooled_blocks": 2}
#: Without colour a tile is as unlike the training set as can be; what else varies is left out.
GREY = AugmentPlan(stain=0, colour=0, contrast=0, blur=0, noise=0, zoom=0, rotation=0, grey=1)


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    return np.stack([draw_tile(number, SIDE) for number in range(24)])


@pytest.fixture
def experiment() -> Experiment:
    plain = ExpertPlan(**EXPERT, colour_filters=(4, 8))
    return Experiment(
        input=InputSpec(width=SIDE, height=SIDE, resample="box"),
        network=NetworkPlan(**EXPERT, plain=plain),
        augment=GREY,
        train=TrainPlan(batch_size=24, seed=3),
    )


def start(experiment: Experiment) -> tuple[Any, Any]:
    """Return a network and its trainee."""
    keras.utils.set_random_seed(experiment.train.seed)
    network = architecture.build_model(experiment.input, experiment.network, 3)
    trainee = trainee_module.Trainee(network, experiment)
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(trainee.trainable_variables)
    trainee.compile(optimizer)
    return network, trainee


def batch(tiles: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray]]:
    return ((tiles, np.eye(3, dtype=np.float32)[np.arange(len(tiles)) % 3]),)


def test_the_gate_learns_which_tiles_are_as_they_were(experiment: Experiment, tiles: np.ndarray) -> None:
    """Open for tiles in colour, shut for grey ones."""
    network, trainee = start(experiment)
    for _ in range(150):
        trainee.train_on_batch(*batch(tiles))
    gate = keras.Model(network.inputs, network.get_layer("gate").output)
    grey = np.repeat(tiles.mean(axis=3, keepdims=True), 3, axis=3)
    assert np.median(np.asarray(gate([tiles.astype(np.float32)]))) > 0.7
    assert np.median(np.asarray(gate([grey.astype(np.float32)]))) < 0.3


def test_the_gate_moves_nothing_but_itself(experiment: Experiment, tiles: np.ndarray) -> None:
    """What it looks at is fitted to the classes alone."""
    tf = pytest.importorskip("tensorflow")
    _, trainee = start(experiment)
    with tf.GradientTape() as tape:
        gate_loss = trainee(batch(tiles)[0], training=True)[2]
    gradients = tape.gradient(gate_loss, trainee.trainable_variables)
    moved = {
        variable.path.split("/")[-2]
        for variable, gradient in zip(trainee.trainable_variables, gradients, strict=True)
        if gradient is not None
    }
    assert moved == {"gate_dense", "gate_norm", "gate_logit"}


def test_each_expert_sees_its_own_kind_of_tile(experiment: Experiment, tiles: np.ndarray) -> None:
    """The varied one grey tiles alone, the plain one the tiles' own colours, turned and mirrored."""
    _, trainee = start(experiment)
    seen: dict[str, np.ndarray] = {}

    def spy(name: str, part: Any) -> Any:
        def call(values: Any, training: bool) -> Any:
            if training:
                seen[name] = np.asarray(values)
            return part(values, training=training)

        return call

    trainee._varied, trainee._plain = spy("varied", trainee._varied), spy("plain", trainee._plain)
    trainee(batch(tiles)[0], training=True)
    assert np.ptp(seen["varied"], axis=3).max() < 1e-3
    np.testing.assert_array_equal(seen["plain"].mean(axis=(1, 2)), tiles.astype(np.float32).mean(axis=(1, 2)))
