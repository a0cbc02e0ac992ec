"""A package from one ONNX file whose graph takes text itself: the rules of Oracle's LOAD_ONNX_MODEL."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from pythiadb.errors import FeatureNotSupported, InvalidModel, InvalidParameter
from pythiadb.models.building import save_model
from pythiadb.models.metadata import Metadata, parse_metadata
from pythiadb.models.package import FORMAT, GRAPH, Package, Spec
from pythiadb.models.session import measure_dimensions
from pythiadb.models.validate import (
    MAX_MODEL_BYTES,
    CheckedModel,
    check_model_file,
    element_type,
    graph_inputs,
    shape_of,
)

_WIDER = (TensorProto.DOUBLE, TensorProto.FLOAT16)
_OUTPUT_KEY = "embeddingOutput"


def package_from_onnx(
    source: Path | bytes,
    work: Path,
    metadata: str | Mapping[str, Any] | None = None,
    *,
    max_bytes: int = MAX_MODEL_BYTES,
) -> Package:
    """Return the package of an ONNX file with one string input and an embedding output.

    New files are written to the folder `work`; files of `source` that stay as they are are named where they lie. Without
    `metadata` Oracle's default applies: input "input", output "embedding", attribute DATA. Raise InvalidModel or
    FeatureNotSupported for a model that cannot be served, InvalidParameter for metadata that does not fit it.
    """
    meta = parse_metadata(metadata)
    path = _as_file(source, work)
    checked = check_model_file(path, max_bytes=max_bytes)
    text = _string_input(checked.model)
    attribute = _attribute(checked.model, meta, text.name)
    output = _embedding_output(checked.model, meta)
    files = {GRAPH: path} | {name: path.parent / name for name in checked.external}
    name = output.name
    if element_type(output) in _WIDER:
        name, files = _as_float32(checked, output, files, work)
    elif element_type(output) != TensorProto.FLOAT:
        raise InvalidModel(f'model output "{output.name}" is not a tensor of floating-point numbers')
    spec = Spec(
        format=FORMAT,
        function=meta.function,
        graph=GRAPH,
        tokenizer=None,
        max_tokens=None,
        inputs=(text.name,),
        output=name,
        dimensions=_dimensions(files[GRAPH], text, output, name),
        attributes=(attribute,),
    )
    return Package(spec, files, meta.raw)


def _as_file(source: Path | bytes, work: Path) -> Path:
    if isinstance(source, Path):
        return source
    path = work / GRAPH
    path.write_bytes(source)
    return path


def _string_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    inputs = graph_inputs(model)
    others = [item.name for item in inputs if element_type(item) != TensorProto.STRING]
    if others:
        raise InvalidModel(
            f'model input "{others[0]}" does not take text',
            hint="If the model takes token ids, load its folder with the tokenizer.json.",
        )
    if len(inputs) != 1:
        raise InvalidModel(f"an embedding model takes exactly one text input, the graph has {len(inputs)}")
    _check_text_shape(inputs[0])
    return inputs[0]


def _check_text_shape(value: onnx.ValueInfoProto) -> None:
    shape = shape_of(value)
    if not shape:
        raise InvalidModel(f'tensor "{value.name}" has no batch dimension')
    variable = sum(size is None for size in shape)
    if variable > 1:
        raise InvalidModel(
            f'tensor "{value.name}" contains multiple dimensions ({variable}) of variable size'
        )
    if len(shape) > 2 or shape[1:] not in ([], [1]) or shape[0] not in (None, 1):
        sizes = ", ".join("?" if size is None else str(size) for size in shape)
        raise InvalidModel(f'tensor "{value.name}" has shape [{sizes}], expected [batch] or [batch, 1]')


def _attribute(model: onnx.ModelProto, meta: Metadata, tensor: str) -> str:
    known = {item.name for item in graph_inputs(model)}
    for name in meta.inputs or {}:
        if name not in known:
            raise InvalidParameter(
                f'field "{name}" in the JSON metadata is not a model input',
                hint=f'The model input is "{tensor}".',
            )
    return meta.single_attribute() or tensor


def _embedding_output(model: onnx.ModelProto, meta: Metadata) -> onnx.ValueInfoProto:
    """Choose the output: the one that the metadata names, one with the name of the key, or the only one."""
    outputs: dict[str, onnx.ValueInfoProto] = {item.name: item for item in model.graph.output}
    if meta.embedding_output is not None:
        if meta.embedding_output not in outputs:
            raise InvalidParameter(
                f'"{meta.embedding_output}" in the JSON metadata is not a model output',
                hint=f"The model has the outputs {', '.join(outputs)}.",
            )
        return outputs[meta.embedding_output]
    for name in (_OUTPUT_KEY, "embedding"):
        if name in outputs:
            return outputs[name]
    if len(outputs) > 1:
        raise InvalidParameter(
            f"model has {len(outputs)} outputs and the metadata does not say which is the embedding",
            hint=f'Add the key "{_OUTPUT_KEY}" with one of {", ".join(outputs)}.',
        )
    return next(iter(outputs.values()))


def _as_float32(
    checked: CheckedModel, output: onnx.ValueInfoProto, files: dict[str, Path], work: Path
) -> tuple[str, dict[str, Path]]:
    """Write the graph with a conversion to float32 after `output`; return the new output and the files."""
    if checked.external:
        raise FeatureNotSupported(
            f'model output "{output.name}" is not float32 and the weights are external data'
        )
    name = "pythia.float32"
    graph = checked.model.graph
    graph.node.append(helper.make_node("Cast", [output.name], [name], to=TensorProto.FLOAT))
    made = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape_of(output))
    graph.output.append(made)
    return name, {**files, **save_model(checked.model, work / GRAPH)}


def _dimensions(graph: Path, text: onnx.ValueInfoProto, output: onnx.ValueInfoProto, name: str) -> int:
    shape = shape_of(output)
    if shape is not None and len(shape) == 2 and shape[1]:
        return shape[1]
    sample = np.array(["probe"], dtype=object).reshape([1] * len(shape_of(text) or [1]))
    return measure_dimensions(graph, {text.name: sample}, name)
