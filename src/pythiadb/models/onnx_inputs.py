"""From the inputs of an ONNX graph and the metadata's input map to attributes: one value a row fills one place of a tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx
from onnx import TensorProto

from pythiadb.errors import InvalidModel, InvalidParameter
from pythiadb.models.metadata import Metadata, check_attribute_name
from pythiadb.models.package import Attribute, Input
from pythiadb.models.validate import element_type, graph_inputs, shape_of
from pythiadb.models.walking import nodes

_SERVED = frozenset(
    {
        TensorProto.STRING,
        TensorProto.BOOL,
        TensorProto.FLOAT16,
        TensorProto.FLOAT,
        TensorProto.DOUBLE,
        TensorProto.INT8,
        TensorProto.INT16,
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.UINT8,
        TensorProto.UINT16,
        TensorProto.UINT32,
        TensorProto.UINT64,
    }
)
_DECODERS = ("DecodeImage", "ImageDecoder")
_TOKEN_TYPES = frozenset({TensorProto.INT32, TensorProto.INT64})
_TOKENIZER_HINT = "If the model takes token ids, load its folder with the tokenizer.json."
_NAME_HINT = 'Name the attributes of the tensor in the metadata, with the key "input".'


def bind_inputs(model: onnx.ModelProto, meta: Metadata) -> tuple[tuple[Input, ...], tuple[Attribute, ...]]:
    """Return how attributes fill the inputs of a graph, and the attributes in order.

    Without an input map an attribute is named after its tensor. Raise InvalidModel for a graph that cannot be filled row by
    row, InvalidParameter for metadata that do not fit it.
    """
    given = graph_inputs(model)
    if not given:
        raise InvalidModel("model graph has no inputs")
    _check_text(meta, given)
    _check_names(meta, [item.name for item in given])
    inputs: list[Input] = []
    attributes: list[Attribute] = []
    for item in given:
        names = _attribute_names(meta, item.name)
        source, kind = _kind(model, item, names)
        inputs.append(Input(item.name, source, names))
        attributes.extend(Attribute(name, kind) for name in names)
    _check_batches(model, given)
    _check_attributes(meta, attributes)
    return tuple(inputs), tuple(attributes)


def takes_file(model: onnx.ModelProto, value: onnx.ValueInfoProto) -> bool:
    """Tell whether a tensor is the bytes of one file: uint8 of one variable dimension, as picture decoders take it.

    An output that shares the dimension's name has an entry for each byte: then they are rows.
    """
    if element_type(value) != TensorProto.UINT8 or shape_of(value) != [None]:
        return False
    name = value.type.tensor_type.shape.dim[0].dim_param
    outputs = (item.type.tensor_type.shape.dim[:1] for item in model.graph.output)
    return not name or all(dimension.dim_param != name for first in outputs for dimension in first)


def _decodes(model: onnx.ModelProto, name: str) -> bool:
    """Tell whether the graph reads an input as a picture."""
    return any(node.op_type in _DECODERS and name in node.input for node in nodes(model))


def _check_text(meta: Metadata, inputs: Sequence[onnx.ValueInfoProto]) -> None:
    """Refuse the graph of a transformer without its tokenizer in words that help."""
    for item in inputs:
        variable = (shape_of(item) or []).count(None)
        if meta.function == "embedding" and element_type(item) in _TOKEN_TYPES and variable > 1:
            raise InvalidModel(f'model input "{item.name}" does not take text', hint=_TOKENIZER_HINT)


def _check_names(meta: Metadata, known: Sequence[str]) -> None:
    for name in meta.inputs or {}:
        if name not in known:
            inputs = ", ".join(f'"{item}"' for item in known)
            raise InvalidParameter(
                f'field "{name}" in the JSON metadata is not a model input',
                hint=f"The model input is {inputs}."
                if len(known) == 1
                else f"The model inputs are {inputs}.",
            )
    for name in known:
        if meta.inputs is not None and name not in meta.inputs:
            raise InvalidParameter(
                f'model input "{name}" has no attribute in the JSON metadata',
                hint=f'Add "{name}" to the key "input".',
            )


def _attribute_names(meta: Metadata, tensor: str) -> tuple[str, ...]:
    if meta.inputs is not None:
        return meta.inputs[tensor]
    check_attribute_name(tensor, hint=_NAME_HINT)
    return (tensor,)


def _kind(model: onnx.ModelProto, item: onnx.ValueInfoProto, names: Sequence[str]) -> tuple[str, str]:
    """Return the source of a tensor and the type of its attributes."""
    element = element_type(item)
    if element not in _SERVED:
        raise InvalidModel(
            f'model input "{item.name}" has the type {_type_name(item)}, which SQL values cannot fill',
            hint="Export the model with inputs of numbers, booleans, strings or bytes.",
        )
    if takes_file(model, item) and len(names) == 1:
        return "image" if _decodes(model, item.name) else "number", "blob"
    width = _width(item)
    if width == len(names):
        return ("text", "text") if element == TensorProto.STRING else ("number", "number")
    if len(names) == 1 and element != TensorProto.STRING:
        return "number", "blob" if element == TensorProto.UINT8 else "vector"
    raise InvalidParameter(
        f'model input "{item.name}" takes {width} values a row, the metadata name {len(names)} attributes',
        hint="Name one attribute for each value of the last dimension, or one for all: an array of numbers.",
    )


def _width(item: onnx.ValueInfoProto) -> int:
    shape = shape_of(item)
    if shape is None:
        raise InvalidModel(f'tensor "{item.name}" has no known shape', hint="Export the model with shapes.")
    if not shape:
        raise InvalidModel(
            f'tensor "{item.name}" has no batch dimension',
            hint="Export the model with a first dimension for rows, of a variable size.",
        )
    variable = sum(size is None for size in shape)
    if variable > 1:
        raise InvalidModel(
            f'tensor "{item.name}" contains multiple dimensions ({variable}) of variable size',
            hint=_TOKENIZER_HINT,
        )
    sizes = ", ".join("?" if size is None else str(size) for size in shape)
    if None in shape[1:]:
        raise InvalidModel(
            f'tensor "{item.name}" has shape [{sizes}], where a dimension behind the first is variable',
            hint=_TOKENIZER_HINT,
        )
    if 0 in shape:
        raise InvalidModel(f'tensor "{item.name}" has shape [{sizes}], which holds nothing')
    return math.prod(size or 1 for size in shape[1:])


def _check_batches(model: onnx.ModelProto, inputs: Sequence[onnx.ValueInfoProto]) -> None:
    fixed = {size: item.name for item in inputs for size in (shape_of(item) or [])[:1] if size is not None}
    if len(fixed) > 1:
        named = " and ".join(f'"{name}" ({size})' for size, name in sorted(fixed.items()))
        raise InvalidModel(
            f"model inputs differ in their fixed batch size: {named}",
            hint="Export the model with a variable first dimension.",
        )
    if len(inputs) > 1 and any(takes_file(model, item) for item in inputs):
        raise InvalidModel("a model that takes a file as bytes cannot have other inputs")


def _check_attributes(meta: Metadata, attributes: Sequence[Attribute]) -> None:
    if meta.function == "embedding" and len(attributes) != 1:
        raise InvalidModel(
            f"an embedding model takes exactly one attribute, the graph needs {len(attributes)}",
            hint=_TOKENIZER_HINT,
        )
    seen: set[str] = set()
    for attribute in attributes:  # names after tensors are not checked yet
        if attribute.name.upper() in seen:
            raise InvalidParameter(
                f'attribute name "{attribute.name}" is used more than once', hint=_NAME_HINT
            )
        seen.add(attribute.name.upper())


def _type_name(item: onnx.ValueInfoProto) -> str:
    kind = item.type.WhichOneof("value")
    if kind != "tensor_type":
        return str(kind or "unknown").removesuffix("_type")
    return str(TensorProto.DataType.Name(element_type(item))).lower()
