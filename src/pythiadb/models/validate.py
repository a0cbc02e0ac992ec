"""Checks of an ONNX file before anything is run: what it is, which operators it uses, which other files it names.

A model file comes from a stranger. It may only use operators that ONNX Runtime and onnxruntime-extensions bring, and external
data may only come from files in the model's own folder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto

from pythiadb.errors import InvalidModel, LimitExceeded
from pythiadb.models.custom import check_operators
from pythiadb.models.package import safe_name
from pythiadb.models.walking import graphs, tensors

MAX_MODEL_BYTES = 16 * 1024**3  # graph and external data together
_PROTOBUF_LIMIT = 2**31 - 1  # bytes in one message
_MAX_ELEMENTS = 2**31  # of one tensor by its shape: 8 GiB of float32
_PACKED_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}


@dataclass(frozen=True, slots=True)
class CheckedModel:
    """A model that passed: the graph without its external data, and the names of the files that hold them."""

    model: onnx.ModelProto
    external: tuple[str, ...]


def check_model_file(path: Path, *, max_bytes: int = MAX_MODEL_BYTES) -> CheckedModel:
    """Read and check an ONNX file and the files that it names.

    Raise InvalidModel for a file that is not a complete ONNX model, is newer than the installed ONNX Runtime, uses custom
    operators or huge tensors, or names external data that is missing, too short or outside its folder; FeatureNotSupported
    for an operator of onnxruntime-extensions that does more than compute; LimitExceeded over `max_bytes`.
    """
    model = _read(path, max_bytes)
    _check_versions(model)
    check_operators(model)
    _check_sizes(model)
    external = _check_external_data(model, path.parent)
    total = path.stat().st_size + sum((path.parent / name).stat().st_size for name in external)
    _check_size(path.name, total, max_bytes)
    return CheckedModel(model, external)


def graph_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that a caller must give: weights are listed as inputs too in files before IR version 4."""
    constants = {tensor.name for tensor in model.graph.initializer}
    constants.update(tensor.values.name for tensor in model.graph.sparse_initializer)
    return [item for item in model.graph.input if item.name not in constants]


def shape_of(value: onnx.ValueInfoProto) -> list[int | None] | None:
    """Return the sizes of a tensor, None for a variable one; None alone when even the rank is unknown."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [
        item.dim_value if item.HasField("dim_value") and item.dim_value >= 0 else None  # some write -1
        for item in tensor.shape.dim
    ]


def element_type(value: onnx.ValueInfoProto) -> int:
    """Return the element type of a tensor as a `TensorProto.DataType`; 0 when the value is no tensor."""
    return int(value.type.tensor_type.elem_type)


def _read(path: Path, max_bytes: int) -> onnx.ModelProto:
    try:
        size = path.stat().st_size
        _check_size(path.name, size, max_bytes)
        if size > _PROTOBUF_LIMIT:
            raise InvalidModel(
                f'"{path.name}" is not an ONNX model', detail="A graph file cannot be larger than 2 GiB."
            )
        content = path.read_bytes()
    except OSError as error:
        raise InvalidModel(f'could not read model file "{path.name}": {error.strerror}') from error
    if not content:
        raise InvalidModel(f'model file "{path.name}" is empty')
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise InvalidModel(
            f'"{path.name}" is not an ONNX model', detail="The file is truncated or holds something else."
        ) from error
    if not (model.ir_version > 0 and model.graph.node and model.graph.output and model.opset_import):
        raise InvalidModel(
            f'"{path.name}" is not an ONNX model', detail="It has no complete graph with its operator set."
        )
    return model


def _check_size(name: str, size: int, limit: int) -> None:
    if size > limit:
        raise LimitExceeded(f'model "{name}" has {size} bytes, the limit is {limit} bytes')


def _check_versions(model: onnx.ModelProto) -> None:
    from pythiadb.models.runtime import runtime_versions  # loads ONNX Runtime

    newest = runtime_versions()
    if model.ir_version > newest.ir:
        raise InvalidModel(
            f"model has ONNX IR version {model.ir_version}, the installed ONNX Runtime reads up to {newest.ir}",
            hint="Export the model again with an older IR version, or upgrade onnxruntime.",
        )
    known = {"": newest.opset, "ai.onnx": newest.opset, "ai.onnx.ml": newest.ml_opset}
    for opset in model.opset_import:
        if opset.version > known.get(opset.domain, opset.version):
            raise InvalidModel(
                f'model uses opset {opset.version} of domain "{opset.domain or "ai.onnx"}", '
                f"the installed ONNX Runtime knows up to {known[opset.domain]}",
                hint="Export the model again with an older opset, or upgrade onnxruntime.",
            )


def _check_sizes(model: onnx.ModelProto) -> None:
    """Refuse tensors that are huge by their shape alone, before anything tries to allocate them."""
    for graph in graphs(model):
        for value in (*graph.input, *graph.output, *graph.value_info):
            _check_elements(value.name, [size or 1 for size in shape_of(value) or []])
    for tensor in tensors(model):
        _check_elements(tensor.name, list(tensor.dims))


def _check_elements(name: str, sizes: list[int]) -> None:
    if min(sizes, default=1) < 0:
        raise InvalidModel(f'tensor "{name}" has a negative size')
    if math.prod(sizes) > _MAX_ELEMENTS:
        raise InvalidModel(
            f'tensor "{name}" has {math.prod(sizes)} elements by its shape, the limit is {_MAX_ELEMENTS}'
        )


def _check_external_data(model: onnx.ModelProto, folder: Path) -> tuple[str, ...]:
    names: dict[str, int] = {}
    for tensor in tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL and not tensor.external_data:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        name = entries.get("location", "")
        if name not in names:
            names[name] = _external_size(name, folder)
        _check_range(tensor, entries, names[name])
    return tuple(names)


def _external_size(name: str, folder: Path) -> int:
    """Return the size of an external data file after checking that it lies in `folder`, links followed."""
    if not safe_name(name):
        raise InvalidModel(f'external data lies outside the model folder: "{name}"')
    try:
        real = (folder / name).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise InvalidModel(f'external data file "{name}" is missing') from error
    if not real.is_relative_to(folder.resolve()):
        raise InvalidModel(
            f'external data lies outside the model folder: "{name}"',
            detail="The path leaves it through a link.",
        )
    if not real.is_file():
        raise InvalidModel(f'external data file "{name}" is not a regular file')
    return real.stat().st_size


def _check_range(tensor: TensorProto, entries: dict[str, str], size: int) -> None:
    needed = _stored_bytes(tensor)
    offset, length = (
        _count(tensor, entries, key, 0 if key == "offset" else needed) for key in ("offset", "length")
    )
    if length < needed:
        raise InvalidModel(
            f'tensor "{tensor.name}" has {length} bytes of external data, its shape needs {needed}'
        )
    if offset + length > size:
        raise InvalidModel(
            f'external data file "{entries["location"]}" is too short',
            detail=f'Tensor "{tensor.name}" ends at byte {offset + length}, the file has {size}.',
        )


def _count(tensor: TensorProto, entries: dict[str, str], key: str, default: int) -> int:
    text = entries.get(key, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise InvalidModel(f'tensor "{tensor.name}" has an invalid external data {key}: "{text}"')
    return int(text)


def _stored_bytes(tensor: TensorProto) -> int:
    try:
        kind = TensorProto.DataType.Name(tensor.data_type)
        item = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, ValueError) as error:
        raise InvalidModel(f'tensor "{tensor.name}" has an unknown type {tensor.data_type}') from error
    if kind in {"STRING", "UNDEFINED"} or min(tensor.dims, default=1) < 0:
        raise InvalidModel(f'tensor "{tensor.name}" cannot have external data')
    bits: int = math.prod(tensor.dims) * _PACKED_BITS.get(kind, 8 * item)
    return -(-bits // 8)
