"""Rewrite a network's first convolution as one that MNN computes by Winograd's form.

A convolution of 5 x 5 with stride 2 over an image's three maps is one of 3 x 3 with stride 1 over twelve: the
same numbers, with each block of 2 x 2 pixels as one pixel of twelve values. Only the second kind has a form
with fewer multiplications (Lavin, Gray 2016, arXiv:1509.09308), and three maps fill less than half of a
vector of eight. Several that look at the same image become one whose maps are parted afterwards.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

#: Winograd's form is for kernels of this size.
_SIDE: Final = 3
_NAME: Final = "space_to_depth"
_CHANNELS_FIRST: Final = [0, 3, 1, 2]


@dataclass(frozen=True)
class _Stem:
    """A convolution over the image itself, and the ReLU that alone takes its maps."""

    convolution: Any
    relu: Any
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]


def fold_stems(network: onnx.ModelProto) -> bool:
    """Rewrite the first convolutions in place, where they are of the kind above; tells whether any was.

    Images come as (n, height, width, 3), both sides even. Answers stay the same but for the order of sums.
    """
    graph = network.graph
    for transpose in [node for node in graph.node if node.op_type == "Transpose"]:
        if _attributes(transpose).get("perm") != _CHANNELS_FIRST:
            continue
        size = _size_of(network, transpose.input[0])
        if size and (stems := _alike(graph, transpose.output[0], size)):
            _replace(graph, transpose, stems, size)
            return True
    return False


def fold_weights(weights: NDArray[np.float32], top: int, left: int) -> NDArray[np.float32]:
    """Return the kernels for blocks of 2 x 2 pixels: (maps, 4 * channels, 3, 3), of (maps, channels, k, k).

    `top` and `left` are how far a kernel of stride 2 begins before its first pixel. The twelve values of a
    block are its pixels row by row, each with its channels.
    """
    maps, channels, rows, columns = weights.shape
    folded = np.zeros((maps, 2, 2, channels, _SIDE, _SIDE), np.float32)
    for row in range(rows):
        for column in range(columns):
            block_row, in_row = divmod(row - top, 2)
            block_column, in_column = divmod(column - left, 2)
            folded[:, in_row, in_column, :, block_row + 1, block_column + 1] = weights[:, :, row, column]
    return folded.reshape(maps, 4 * channels, _SIDE, _SIDE)


def _alike(graph: Any, image: str, size: tuple[int, int]) -> list[_Stem]:
    """Return the convolutions over the image that can be one: those with the pads of the first."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    stems = []
    for convolution in _takers(graph, image):
        takers = _takers(graph, convolution.output[0])
        if not _is_foldable(convolution, constants, size) or [node.op_type for node in takers] != ["Relu"]:
            continue
        weights = numpy_helper.to_array(constants[convolution.input[1]])
        bias = np.zeros(len(weights), np.float32)
        if len(convolution.input) > 2:
            bias = numpy_helper.to_array(constants[convolution.input[2]])
        stems.append(_Stem(convolution, takers[0], weights, bias))
    return [stem for stem in stems if _pads(stem.convolution) == _pads(stems[0].convolution)]


def _is_foldable(node: Any, constants: dict[str, Any], size: tuple[int, int]) -> bool:
    """Tell whether it has stride 2 and reaches, in each direction, into the blocks beside its own."""
    given = _attributes(node)
    plain = given.get("group", 1) == 1 and given.get("dilations", [1, 1]) == [1, 1]
    if node.op_type != "Conv" or given.get("strides") != [2, 2] or not plain:
        return False
    if any(name not in constants for name in node.input[1:]):
        return False
    kernel, pads = constants[node.input[1]].dims[2:], _pads(node)
    return all(
        # It begins in the block before its own and ends in the one after, and there are as many as blocks.
        pads[axis] in (1, 2)
        and kernel[axis] - 1 - pads[axis] <= 3
        and (size[axis] + pads[axis] + pads[axis + 2] - kernel[axis]) // 2 + 1 == size[axis] // 2
        for axis in (0, 1)
    )


def _replace(graph: Any, transpose: Any, stems: list[_Stem], size: tuple[int, int]) -> None:
    rows, columns, channels = size[0] // 2, size[1] // 2, stems[0].weights.shape[1]
    pads = _pads(stems[0].convolution)
    folded = np.concatenate([fold_weights(stem.weights, pads[0], pads[1]) for stem in stems])
    constants = {
        "blocks": np.array([-1, rows, 2, columns, 2, channels], np.int64),
        "deep": np.array([-1, 4 * channels, rows, columns], np.int64),
        "weights": folded,
        "bias": np.concatenate([stem.bias for stem in stems]),
        "parts": np.array([len(stem.bias) for stem in stems], np.int64),
    }
    names = {key: f"{_NAME}/{key}" for key in constants}
    graph.initializer.extend(numpy_helper.from_array(value, names[key]) for key, value in constants.items())
    chain: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Reshape", [transpose.input[0], names["blocks"]], {}),
        ("Transpose", [], {"perm": [0, 2, 4, 5, 1, 3]}),
        ("Reshape", [names["deep"]], {}),
        ("Conv", [names["weights"], names["bias"]], {"kernel_shape": [_SIDE] * 2, "pads": [1] * 4}),
        ("Relu", [], {}),
    ]
    nodes, last = [], ""
    for number, (kind, inputs, attributes) in enumerate(chain):
        given = [last, *inputs] if last else inputs
        last = f"{_NAME}/{number}"
        nodes.append(helper.make_node(kind, given, [last], name=last, **attributes))
    outputs = [stem.relu.output[0] for stem in stems]
    nodes.append(helper.make_node("Split", [last, names["parts"]], outputs, name=f"{_NAME}/split", axis=1))
    position = list(graph.node).index(transpose)
    for offset, node in enumerate(nodes):
        graph.node.insert(position + offset, node)
    for stem in stems:
        graph.node.remove(stem.convolution)
        graph.node.remove(stem.relu)


def _takers(graph: Any, tensor: str) -> list[Any]:
    return [node for node in graph.node if tensor in node.input]


def _attributes(node: Any) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _pads(node: Any) -> list[int]:
    """Return what is added above, to the left, below and to the right."""
    pads: list[int] = _attributes(node).get("pads", [0, 0, 0, 0])
    return pads


def _size_of(network: onnx.ModelProto, tensor: str) -> tuple[int, int] | None:
    """Return height and width of images (n, height, width, channels); None where those are odd or unknown."""
    inferred = onnx.shape_inference.infer_shapes(network).graph
    for value in (*inferred.input, *inferred.value_info):
        if value.name == tensor:
            sides = [side.dim_value for side in value.type.tensor_type.shape.dim]
            if all(side and side % 2 == 0 for side in sides[1:3]):
                return sides[1], sides[2]
    return None
