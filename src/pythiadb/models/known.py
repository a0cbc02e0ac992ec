"""Values that a graph knows: the categories of its encoders, for trial runs with made-up rows.

An encoder of scikit-learn that was trained to refuse unknown categories fails on made-up texts and numbers. The values that it
takes stand in the graph; what is followed is how columns of the inputs come to the encoders.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from pythiadb.models.validate import graph_inputs, shape_of

Column = tuple[str, int]  # an input and the place of a value in its rows
Known = Mapping[Column, Sequence[Any]]

_MOST_COLUMNS = 4096  # wider tensors are pictures and bytes of files
_SAME = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
_PICKS = frozenset({"Gather", "ArrayFeatureExtractor"})
_CATEGORIES = {
    "OneHotEncoder": ("cats_strings", "cats_int64s"),
    "LabelEncoder": ("keys_strings", "keys_int64s", "keys_floats", "keys_tensor"),
    "CategoryMapper": ("cats_strings",),
}


def known_values(model: onnx.ModelProto) -> dict[Column, list[Any]]:
    """Return the values that encoders of the graph take, for each column of an input that reaches one."""
    known: dict[Column, list[Any]] = {}
    flows = {item.name: _columns(item) for item in graph_inputs(model)}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:  # in the order in which they run
        for column, values in _taken(node, flows):
            known.setdefault(column, values)
        columns = _passed(node, flows, constants)
        if columns:
            flows[node.output[0]] = columns
    return known


def as_type(values: Sequence[Any], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """Return values as an array of a tensor's type, None when it cannot hold them."""
    try:
        return np.array(values, dtype=object if dtype.kind == "O" else None).astype(dtype)
    except (ValueError, OverflowError):
        return None


def _columns(item: onnx.ValueInfoProto) -> tuple[Column, ...]:
    width = math.prod(size or 1 for size in (shape_of(item) or [])[1:])
    return tuple((item.name, place) for place in range(width)) if width <= _MOST_COLUMNS else ()


def _taken(
    node: onnx.NodeProto, flows: Mapping[str, tuple[Column, ...]]
) -> Iterator[tuple[Column, list[Any]]]:
    wanted = _CATEGORIES.get(node.op_type, ())
    for attribute in node.attribute:
        if attribute.name in wanted:
            values = _values(attribute)
            if values:
                yield from ((column, values) for column in flows.get(node.input[0], ()))


def _values(attribute: onnx.AttributeProto) -> list[Any]:
    value: Any = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        value = onnx.numpy_helper.to_array(value).ravel().tolist()
    return [v.decode(errors="replace") if isinstance(v, bytes) else v for v in value]


def _passed(
    node: onnx.NodeProto,
    flows: Mapping[str, tuple[Column, ...]],
    constants: Mapping[str, onnx.TensorProto],
) -> tuple[Column, ...]:
    """Return the columns that the first output of a node holds, none when that is not known."""
    given = [flows.get(name, ()) for name in node.input]
    if node.op_type in _SAME:
        return given[0]
    if node.op_type == "Concat" and all(given):
        return tuple(column for columns in given for column in columns)
    if node.op_type in _PICKS and given[0]:
        return tuple(given[0][place] for place in _places(constants.get(node.input[1]), len(given[0])))
    return ()


def _places(tensor: onnx.TensorProto | None, width: int) -> list[int]:
    if (
        tensor is None
        or tensor.data_type != TensorProto.INT64
        or tensor.data_location == TensorProto.EXTERNAL
    ):
        return []
    places: list[int] = onnx.numpy_helper.to_array(tensor).ravel().tolist()
    return [place for place in places if 0 <= place < width]
