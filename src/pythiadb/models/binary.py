"""Classifiers whose graph gives one number a row: a probability, or a score, of the second of two classes.

What is a probability is served as two columns, one for each class, by nodes that are added to the graph. That numbers lie between 0
and 1 does not make them probabilities, as made-up rows tell little: a sigmoid makes them, or the metadata name them so. A score, as a
support vector machine's, becomes a probability where the metadata ask for softmax.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from pythiadb.models.labels import PASSING

_CLASSES = "pythia.classes"
_OPSET = 17  # of a graph that uses no standard operator so far
# What one column is multiplied with and what is added, for each of two. Softmax of the scores is their sigmoid.
_PROBABILITIES = ([-1, 1], [1, 0])
_SCORES = ([-0.5, 0.5], [0, 0])


def is_sigmoid(model: onnx.ModelProto, tensor: str) -> bool:
    """Tell whether a sigmoid makes a tensor, in whatever shape it is then brought."""
    made = {name: node for node in model.graph.node for name in node.output}
    node = made.get(tensor)
    while node is not None and node.op_type in PASSING:
        node = made.get(node.input[0])
    if node is None:
        return False
    return node.op_type == "Sigmoid" or any(
        item.name == "post_transform" and item.s == b"LOGISTIC" for item in node.attribute
    )


def two_columns(column: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the probabilities of both classes out of those of the second."""
    values = column.reshape(-1, 1)
    return np.concatenate([1 - values, values], axis=1)


def add_two_columns(model: onnx.ModelProto, tensor: str, element: int, *, scores: bool) -> str:
    """Make a graph compute two columns out of one, of probabilities or of `scores`; return the new output."""
    scale, shift = _SCORES if scores else _PROBABILITIES
    dtype = helper.tensor_dtype_to_np_dtype(element)
    constants = {
        "shape": np.array([-1, 1], dtype=np.int64),
        "scale": np.array([scale], dtype=dtype),
        "shift": np.array([shift], dtype=dtype),
    }
    graph = model.graph
    graph.initializer.extend(
        numpy_helper.from_array(values, f"{_CLASSES}.{name}") for name, values in constants.items()
    )
    steps = [
        ("Reshape", tensor, "shape"),
        ("Mul", f"{_CLASSES}.0", "scale"),
        ("Add", f"{_CLASSES}.1", "shift"),
    ]
    results = [f"{_CLASSES}.0", f"{_CLASSES}.1", _CLASSES]
    graph.node.extend(
        helper.make_node(operator, [given, f"{_CLASSES}.{constant}"], [result])
        for (operator, given, constant), result in zip(steps, results, strict=True)
    )
    graph.output.append(helper.make_tensor_value_info(_CLASSES, element, None))
    if all(entry.domain not in ("", "ai.onnx") for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", _OPSET))
    return _CLASSES


def are_chances(values: NDArray[np.floating]) -> bool:
    """Tell whether numbers lie between 0 and 1."""
    return bool(((values >= 0) & (values <= 1)).all())
