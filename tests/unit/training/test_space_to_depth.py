"""First convolutions over blocks of pixels give what they gave over pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from ops.prepare import newest_bundled_model  # noqa: E402
from training.space_to_depth import fold_stems, fold_weights  # noqa: E402

SIDES = (12, 16)


def network(
    stems: Sequence[dict[str, Any]],
    *,
    sides: tuple[int | str, int] = SIDES,
    perm: Sequence[int] = (0, 3, 1, 2),
    after: str = "Relu",
) -> Any:
    """Return a graph of several first convolutions over one image, each an output of its own."""
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("Mul", ["image", "scale"], ["values"]),
        helper.make_node("Transpose", ["values"], ["maps"], perm=perm),
    ]
    constants, outputs = [numpy_helper.from_array(np.float32(0.01), "scale")], []
    for number, given in enumerate(stems):
        size, has_bias = given.pop("size", 5), given.pop("has_bias", True)
        channels = 3 // given.get("group", 1)
        weights = rng.normal(size=(6 + 3 * number, channels, size, size)).astype(np.float32)
        named = {f"weights{number}": weights}
        if has_bias:
            named[f"bias{number}"] = rng.normal(size=len(weights)).astype(np.float32)
        constants += [numpy_helper.from_array(value, name) for name, value in named.items()]
        nodes += [
            helper.make_node("Conv", ["maps", *named], [f"conv{number}"], **given),
            helper.make_node(after, [f"conv{number}"], [f"stem{number}"]),
        ]
        outputs.append(helper.make_tensor_value_info(f"stem{number}", TensorProto.FLOAT, [None] * 4))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", *sides, 3])
    graph = helper.make_graph(nodes, "stems", [image], outputs, constants)
    # As tf2onnx writes it.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def stem(pads: Sequence[int] = (1, 1, 2, 2), **others: Any) -> dict[str, Any]:
    """Return a convolution's attributes: stride 2 unless told otherwise."""
    return {"strides": [2, 2], "pads": list(pads), **others}


def answers(model: Any) -> list[np.ndarray]:
    """Return every output for one image of noise."""
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    images = np.random.default_rng(5).uniform(0, 255, (2, *SIDES, 3)).astype(np.float32)
    return list(session.run(None, {"image": images}))


@pytest.mark.parametrize(
    "stems",
    [
        [stem()],
        [stem(), stem()],
        [stem(has_bias=False)],
        [stem(pads=(2, 2, 1, 1))],
        [stem(pads=(1, 2, 2, 1))],
        [stem(size=4, pads=(1, 1, 1, 1))],
        [stem(size=6, pads=(2, 2, 2, 2))],
        [stem(size=3, pads=(1, 1, 0, 0))],
        # One of two alone, the first and the second.
        [stem(), stem(pads=(2, 2, 1, 1))],
        [stem(strides=[1, 1]), stem()],
    ],
)
def test_folded_convolutions_answer_as_before(stems: list[dict[str, Any]]) -> None:
    """Any kernel of two to three blocks, at any pads, with a bias or without, several at once."""
    model = network(stems)
    before = answers(model)
    assert fold_stems(model)
    for one, other in zip(before, answers(model), strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-4)
        assert one.any()


def test_several_over_one_image_become_one() -> None:
    """The image is read once; its maps are parted in their old order."""
    model = network([stem(), stem()])
    assert fold_stems(model)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 1
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert constants[convolutions[0].input[1]].shape == (15, 12, 3, 3)
    assert constants["space_to_depth/parts"].tolist() == [6, 9]


@pytest.mark.parametrize(
    "refused",
    [
        network([stem(strides=[1, 1])]),
        network([stem(strides=[2, 1])]),
        network([stem(size=3, pads=(0, 0, 1, 1))]),
        network([stem(size=7, pads=(2, 2, 3, 3))]),
        network([stem(pads=(0, 0, 3, 3))]),
        network([stem(pads=(1, 1, 0, 0))]),
        network([stem(dilations=[2, 2], size=3, pads=(1, 1, 1, 1))]),
        network([stem(group=3)]),
        network([stem()], after="Sigmoid"),
        network([stem()], perm=[0, 3, 2, 1]),
        network([stem()], sides=(11, 16)),
        network([stem()], sides=("height", 16)),
        helper.make_model(helper.make_graph([], "none", [], [])),
    ],
)
def test_other_networks_stay_as_they_are(refused: Any) -> None:
    """Of another stride, size, place or form, of sides that are odd or not known."""
    before = refused.SerializeToString()
    assert not fold_stems(refused)
    assert refused.SerializeToString() == before


def test_a_kernel_finds_its_pixels_in_blocks() -> None:
    """Row 0 of a kernel that begins one pixel before its own lies in the block before, in its second row."""
    weights = np.zeros((1, 3, 5, 5), np.float32)
    weights[0, 2, 0, 1] = 7.0
    folded = fold_weights(weights, 1, 1).reshape(1, 2, 2, 3, 3, 3)
    assert np.argwhere(folded).tolist() == [[0, 1, 0, 2, 0, 1]]


def test_the_bundled_networks_experts_share_one() -> None:
    """As their first convolutions see the same image."""
    model = onnx.load(newest_bundled_model() / "model.onnx")
    before = sum(node.op_type == "Conv" for node in model.graph.node)
    assert fold_stems(model)
    assert sum(node.op_type == "Conv" for node in model.graph.node) == before - 1
