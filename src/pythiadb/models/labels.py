"""The labels of a classifier where its graph holds them: in a classifier operator, an encoder, or a constant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from pythiadb.models.metadata import Label

LABELS = frozenset({TensorProto.STRING, TensorProto.INT64, TensorProto.INT32})
# Operators that hand values on as they are, in another shape or type.
PASSING = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})


def class_labels(node: onnx.NodeProto) -> tuple[Label, ...] | None:
    """Return the labels of a classifier or ZipMap, in the order of its probabilities."""
    for attribute in node.attribute:
        if attribute.name == "classlabels_strings" and attribute.strings:
            return tuple(text.decode(errors="replace") for text in attribute.strings)
        if attribute.name in ("classlabels_int64s", "classlabels_ints") and attribute.ints:
            return tuple(attribute.ints)
    return None


def labels_of(
    model: onnx.ModelProto, roles: Mapping[str, str], given: Sequence[Label], chances: NDArray[Any]
) -> tuple[Label, ...] | None:
    """Return the labels in the order of the probabilities, None when the graph does not tell.

    `roles` names the outputs "label" and "probability", `given` and `chances` are what they gave for some rows. The labels of the
    classifier operator that makes the probabilities are in their order; any other list in the graph is right when the most
    probable class has the given label in every row. Without a list the rows tell, where each class was some row's most probable.
    """
    classes = chances.shape[1]
    known = set(given)
    for labels in _lists(model, roles["probability"], classes, class_labels):
        if known <= set(labels):
            return labels
    best = chances.argmax(axis=1).tolist()
    for labels in _lists(
        model, roles["label"], classes, lambda node: class_labels(node) or _coded_labels(node)
    ):
        if all(labels[place] == label for place, label in zip(best, given, strict=True)):
            return labels
    if list(given) == best and _is_place(model, roles["label"]):
        return tuple(range(classes))
    return labels_seen(given, chances)


def labels_seen(given: Sequence[Label], chances: NDArray[Any]) -> tuple[Label, ...] | None:
    """Return the label that each class had where it was the most probable; None when one had none, or several."""
    seen: dict[int, Label] = {}
    for place, label in zip(chances.argmax(axis=1).tolist(), given, strict=True):
        if seen.setdefault(place, label) != label:
            return None
    if len(set(seen.values())) < chances.shape[1]:
        return None
    return tuple(seen[place] for place in range(chances.shape[1]))


def _is_place(model: onnx.ModelProto, label: str) -> bool:
    """Tell whether a label is the place of the highest value, counted from 0, and no number is made out of it."""
    made = {name: node for node in model.graph.node for name in node.output}
    node = made.get(label)
    while node is not None and node.op_type in PASSING:
        node = made.get(node.input[0])
    return node is not None and node.op_type == "ArgMax"


def _lists(
    model: onnx.ModelProto,
    output: str,
    classes: int,
    read: Callable[[onnx.NodeProto], tuple[Label, ...] | None],
) -> Iterator[tuple[Label, ...]]:
    """Yield lists of `classes` labels that stand in the part of the graph that makes `output`, nearest first."""
    made = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    waiting, seen = [output], {output}
    while waiting:
        name = waiting.pop(0)
        node = made.get(name)
        if node is None:
            found = _constant_labels(constants.get(name))
        else:
            found = read(node)
            fresh = [item for item in node.input if item and item not in seen]
            seen.update(fresh)
            waiting.extend(fresh)
        if found is not None and len(found) == classes:
            yield found


def _constant_labels(tensor: TensorProto | None) -> tuple[Label, ...] | None:
    if tensor is None or tensor.data_type not in LABELS or tensor.data_location == TensorProto.EXTERNAL:
        return None
    values = onnx.numpy_helper.to_array(tensor).ravel().tolist()
    return tuple(v.decode(errors="replace") if isinstance(v, bytes) else v for v in values)


def _coded_labels(node: onnx.NodeProto) -> tuple[Label, ...] | None:
    """Return the strings of a LabelEncoder in the order of the numbers 0, 1, … that it maps to them."""
    attributes = {item.name: item for item in node.attribute}
    keys, values = attributes.get("keys_int64s"), attributes.get("values_strings")
    if node.op_type != "LabelEncoder" or keys is None or values is None:
        return None
    pairs = sorted(zip(keys.ints, values.strings, strict=False))
    return tuple(text.decode(errors="replace") for _, text in pairs)
