"""Which outputs of an ONNX graph are the answer: the resolution rules of Oracle's metadata, and scikit-learn's ways to export.

An output is the one that the metadata name; else the one named like the metadata key; else the only one. What is left open
after that goes by type and name: a classifier's floating-point output holds the probabilities, an output "scores" of a
clustering model the distances.

A ZipMap, which turns probabilities into a list of maps, is cut out of the graph; the tensor before it is served instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
from onnx import TensorProto, helper

from pythiadb.errors import FeatureNotSupported, InvalidModel, InvalidParameter
from pythiadb.models.labels import LABELS, class_labels
from pythiadb.models.metadata import OUTPUT_KEYS, Label, Metadata
from pythiadb.models.validate import element_type

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16})
_NUMBERS = _FLOATS | {TensorProto.INT64, TensorProto.INT32, TensorProto.INT16, TensorProto.INT8}
# Labels may be of these types too where the metadata name their output.
_SMALL_LABELS = {TensorProto.INT16, TensorProto.INT8, TensorProto.UINT16, TensorProto.UINT8}
_DISTANCES = ("scores", "distances", "distance")
_PROBABILITIES = ("probabilities", "probability", "output_probability")
_FLOAT32 = "pythia.float32"


@dataclass
class Outputs:
    """The tensor of each role, and what is known of the classes.

    `label` is the output that names the class of each row, or all classes: which, a run tells. `class_labels` are the labels
    that the export itself puts beside the probabilities. `changed` tells that the graph was edited.
    """

    roles: dict[str, str]
    label: str | None = None
    label_named: bool = False
    probability_named: bool = False
    class_labels: tuple[Label, ...] | None = None
    changed: bool = False
    types: Mapping[str, int] = field(default_factory=dict)


def choose_outputs(model: onnx.ModelProto, meta: Metadata) -> Outputs:
    """Return the outputs that answer for a function; edits `model` where an output has to be made.

    Raise InvalidParameter when the metadata name an output that is not there or do not say enough, InvalidModel when an
    output has a type that cannot be served.
    """
    zipped = _unzip(model)
    outputs = {item.name: item for item in model.graph.output}
    roles = _named(meta, outputs, zipped)
    _check_sequences(meta, roles, outputs)
    chosen = Outputs(
        roles,
        label_named="label" in roles,
        probability_named="probability" in roles,
        changed=bool(zipped),
    )
    if meta.function == "classification":
        _find_classes(model, chosen, outputs, zipped)
    if not roles:
        _find_others(meta, roles, outputs)
    if not roles:
        _undecided(meta, outputs)
    for role, name in roles.items():
        _check_type(role, name, outputs)
    if meta.function == "embedding":
        chosen.changed |= _as_float32(model, roles, outputs)
    chosen.types = {item.name: element_type(item) for item in model.graph.output}
    return chosen


@dataclass(frozen=True)
class _Zipped:
    """A list of maps that was cut off: the tensor before it and the keys of its maps."""

    tensor: str
    labels: tuple[Label, ...]


def _unzip(model: onnx.ModelProto) -> dict[str, _Zipped]:
    """Replace outputs made by ZipMap by the tensors before it; return what was cut off, by output name."""
    graph = model.graph
    nodes = {node.output[0]: node for node in graph.node if node.op_type == "ZipMap"}
    names = {item.name for item in graph.output}
    zipped: dict[str, _Zipped] = {}
    for name, node in nodes.items():
        if name not in names or not node.input:
            continue
        zipped[name] = _Zipped(node.input[0], class_labels(node) or ())
        graph.node.remove(node)
        place = next(n for n, item in enumerate(graph.output) if item.name == name)
        del graph.output[place]
        if node.input[0] not in {item.name for item in graph.output}:
            graph.output.append(helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, None))
    return zipped


def _named(
    meta: Metadata, outputs: Mapping[str, onnx.ValueInfoProto], zipped: Mapping[str, _Zipped]
) -> dict[str, str]:
    """Return the outputs that the metadata name, and those that are named like a metadata key."""
    roles: dict[str, str] = {}
    for key, role in OUTPUT_KEYS[meta.function].items():
        name = meta.outputs.get(role)
        if name is not None and name not in outputs and name not in zipped:
            known = ", ".join([*zipped, *outputs])
            raise InvalidParameter(
                f'"{name}" in the JSON metadata is not a model output',
                hint=f"The model has the outputs {known}.",
            )
        name = name or (key if key in outputs or key in zipped else None)
        if name is not None:
            roles[role] = zipped[name].tensor if name in zipped else name
    return roles


def _check_sequences(
    meta: Metadata, roles: Mapping[str, str], outputs: Mapping[str, onnx.ValueInfoProto]
) -> None:
    """Refuse a list of tensors as an answer: scikit-learn makes one, a tensor a target, for a classifier of several targets."""
    lists = {
        name for name, item in outputs.items() if item.type.sequence_type.elem_type.HasField("tensor_type")
    }
    wanted = lists & set(roles.values())
    if (
        not roles
        and meta.function == "classification"
        and not any(element_type(o) in _FLOATS for o in outputs.values())
    ):
        wanted = lists
    if wanted:
        raise FeatureNotSupported(
            "a model with several targets is not supported",
            detail=f'Model output "{min(wanted)}" is a sequence of tensors, one for each target.',
            hint="Export one model for each target.",
        )


def _find_classes(
    model: onnx.ModelProto,
    chosen: Outputs,
    outputs: dict[str, onnx.ValueInfoProto],
    zipped: Mapping[str, _Zipped],
) -> None:
    """Complete the roles of a classifier: probabilities, and the output that tells labels."""
    roles = chosen.roles
    if "probability" not in roles:
        _find_probability(model, chosen, outputs, zipped)
    labels = [name for name, item in outputs.items() if element_type(item) in LABELS]
    chosen.label = roles.pop("label", None) or (labels[0] if len(labels) == 1 else None)
    if chosen.label is not None:
        _check_type("label", chosen.label, outputs)
    if "probability" not in roles:
        if chosen.label is not None and (chosen.label_named or len(outputs) == 1):
            roles["label"] = chosen.label
        return
    for cut in zipped.values():
        if cut.tensor == roles["probability"] and cut.labels:
            chosen.class_labels = cut.labels


def _find_probability(
    model: onnx.ModelProto,
    chosen: Outputs,
    outputs: dict[str, onnx.ValueInfoProto],
    zipped: Mapping[str, _Zipped],
) -> None:
    floats = [name for name, item in outputs.items() if element_type(item) in _FLOATS]
    if len(zipped) == 1:
        chosen.roles["probability"] = next(iter(zipped.values())).tensor
    elif len(floats) == 1:
        chosen.roles["probability"] = floats[0]
    elif len(floats) > 1:
        named = [name for name in _PROBABILITIES if name in floats]
        if named:
            chosen.roles["probability"] = named[0]
        else:
            _join_columns(model, chosen, outputs, floats)


def _join_columns(
    model: onnx.ModelProto, chosen: Outputs, outputs: dict[str, onnx.ValueInfoProto], floats: list[str]
) -> None:
    """Serve the tensor that scikit-learn's export has cut into one output a class (`zipmap="columns"`).

    The outputs are named "i" or "s", for integers and strings, and the label.
    """
    made = {node.output[0]: node for node in model.graph.node if node.output}
    sources = {_sliced(made, name) for name in floats}
    source = next(iter(sources))
    if len(sources) != 1 or source is None or source in outputs:
        return
    item = helper.make_tensor_value_info(source, element_type(outputs[floats[0]]), None)
    model.graph.output.append(item)
    outputs[source] = item
    chosen.roles["probability"] = source
    chosen.changed = True
    texts = [name[1:] for name in floats]
    if all(name.startswith("s") for name in floats):
        chosen.class_labels = tuple(texts)
    elif all(
        name.startswith("i") and text.lstrip("-").isdigit() for name, text in zip(floats, texts, strict=True)
    ):
        chosen.class_labels = tuple(map(int, texts))


def _sliced(made: Mapping[str, onnx.NodeProto], name: str) -> str | None:
    """Return the tensor of which an output is one column."""
    node = made.get(name)
    while node is not None and node.op_type in ("Reshape", "Slice", "ArrayFeatureExtractor", "Squeeze"):
        if node.op_type in ("Slice", "ArrayFeatureExtractor"):
            return str(node.input[0])
        node = made.get(node.input[0])
    return None


def _find_others(meta: Metadata, roles: dict[str, str], outputs: Mapping[str, onnx.ValueInfoProto]) -> None:
    """Choose the output of another function when nothing was named."""
    floats = [name for name, item in outputs.items() if element_type(item) in _FLOATS]
    first = next(iter(OUTPUT_KEYS[meta.function].values()))
    if meta.function == "clustering":
        distances = [name for name in floats if name.lower() in _DISTANCES]
        probabilities = [name for name in floats if name.lower() in _PROBABILITIES]
        if distances:
            roles["distance"] = distances[0]
        if probabilities:
            roles["probability"] = probabilities[0]
        if roles:
            return
    if meta.function == "embedding" and "embedding" in outputs:
        roles[first] = "embedding"
    elif len(outputs) == 1:
        roles[first] = next(iter(outputs))
    elif len(floats) == 1 and meta.function != "embedding":
        roles[first] = floats[0]


def _undecided(meta: Metadata, outputs: Mapping[str, onnx.ValueInfoProto]) -> None:
    keys = list(OUTPUT_KEYS[meta.function])
    words = {"embedding": "the embedding", "regression": "the result"}
    wanted = words.get(meta.function, "the probabilities")
    raise InvalidParameter(
        f"model has {len(outputs)} outputs and the metadata does not say which is {wanted}",
        hint=f'Add the key "{keys[0]}" with one of {", ".join(outputs)}.',
    )


def _check_type(role: str, name: str, outputs: Mapping[str, onnx.ValueInfoProto]) -> None:
    element = element_type(outputs[name])
    if role == "label":
        if element not in LABELS | _SMALL_LABELS:
            raise InvalidModel(f'model output "{name}" is not a tensor of strings or integers')
    elif element not in (_NUMBERS if role == "regression" else _FLOATS):
        raise InvalidModel(f'model output "{name}" is not a tensor of floating-point numbers')


def _as_float32(
    model: onnx.ModelProto, roles: dict[str, str], outputs: Mapping[str, onnx.ValueInfoProto]
) -> bool:
    """Add a conversion behind an embedding of another floating-point type."""
    name = roles["embedding"]
    if element_type(outputs[name]) == TensorProto.FLOAT:
        return False
    model.graph.node.append(helper.make_node("Cast", [name], [_FLOAT32], to=TensorProto.FLOAT))
    made = onnx.ValueInfoProto()
    made.CopyFrom(outputs[name])
    made.name = _FLOAT32
    made.type.tensor_type.elem_type = TensorProto.FLOAT
    model.graph.output.append(made)
    roles["embedding"] = _FLOAT32
    return True
