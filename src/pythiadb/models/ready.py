"""Ready graphs of a model folder, `model.onnx` or `onnx/model.onnx`, completed with what they leave to Python code.

An encoder that stops at token vectors gets pooling nodes; a scorer with independent labels gets its sigmoid.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from pythiadb.errors import InvalidModel, InvalidParameter
from pythiadb.models.bert import INPUTS, OUTPUT, TYPES
from pythiadb.models.building import GraphBuilder, save_model
from pythiadb.models.heads import LOGITS, Task
from pythiadb.models.package import GRAPH
from pythiadb.models.pooling import Pooling, add_pooling
from pythiadb.models.session import measure_dimensions
from pythiadb.models.source import Source
from pythiadb.models.validate import CheckedModel, check_model_file, element_type, graph_inputs, shape_of

TOKEN_SOURCES = {INPUTS[0]: "ids", INPUTS[1]: "mask", TYPES: "types"}
_PLACES = ("", "onnx")
_SENTENCE_OUTPUT = "sentence_embedding"
_TOKEN_OUTPUTS = ("last_hidden_state", "token_embeddings")
_ADDED_OUTPUT = "pythia.embedding"
_ADDED_SCORES = "pythia.probabilities"
_INTEGERS = (TensorProto.INT64, TensorProto.INT32)


@dataclass(frozen=True, slots=True)
class Ready:
    """A graph that needs nothing more: its files by stored name, inputs in use, output, and the output's columns.

    `pooling` is what pools the tokens, None where the graph did it already.
    """

    files: dict[str, Path]
    inputs: tuple[str, ...]
    output: str
    width: int
    pooling: Pooling | None


def find_graph(folder: Path, name: str = GRAPH) -> Path | None:
    """Return the path of a ready graph, in the folder or in its subfolder onnx/."""
    return next((path for place in _PLACES if (path := folder / place / name).is_file()), None)


def ready_encoder(source: Source, pooling: Pooling) -> Ready:
    """Return the folder's graph as one from tokens to an embedding."""
    path, checked = open_graph(source)
    inputs = token_inputs(checked.model)
    output = _embedding_output(checked.model, source.given.get("embeddingOutput"))
    if _is_per_token(output):
        graph = added_nodes(checked.model)
        add_pooling(graph, output.name, INPUTS[1], pooling, _ADDED_OUTPUT)
        files = extend_graph(checked, path, source.work, graph, _ADDED_OUTPUT)
        return _measured(checked, files, inputs, _ADDED_OUTPUT, pooling)
    return _measured(checked, stored_files(checked, path), inputs, output.name, None)


def ready_classifier(source: Source, task: Task) -> Ready:
    """Return the folder's graph as one from tokens to logits, or to probabilities of independent labels."""
    path, checked = open_graph(source)
    inputs = token_inputs(checked.model)
    named = source.given.get("regressionOutput" if task.labels is None else "classificationProbOutput")
    output = score_output(checked.model, named)
    if task.independent:
        graph = added_nodes(checked.model)
        graph.node("Sigmoid", output, output=_ADDED_SCORES)
        files = extend_graph(checked, path, source.work, graph, _ADDED_SCORES)
        output = _ADDED_SCORES
    else:
        files = stored_files(checked, path)
    ready = _measured(checked, files, inputs, output, None)
    if ready.width != task.scores:
        raise InvalidModel(
            f'model output "{output}" has {ready.width} columns, config.json names {task.scores} labels'
        )
    return ready


def open_graph(source: Source) -> tuple[Path, CheckedModel]:
    """Return the folder's ready graph after its checks; raise InvalidModel when there is none."""
    path = find_graph(source.folder)
    if path is None:
        raise InvalidModel(
            f'model folder "{source.folder.name}" has neither weights nor a graph',
            hint=f"It needs model.safetensors with config.json, or {GRAPH}.",
        )
    return path, check_model_file(path)


def stored_files(checked: CheckedModel, path: Path) -> dict[str, Path]:
    """Return a graph's files by stored name, where they lie."""
    return {GRAPH: path} | {name: path.parent / name for name in checked.external}


def added_nodes(model: onnx.ModelProto) -> GraphBuilder:
    """Return a builder for nodes that are added to a foreign graph, of its operator set."""
    opset = next((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), 0)
    return GraphBuilder("pythia.", opset)


def extend_graph(
    checked: CheckedModel, path: Path, work: Path, graph: GraphBuilder, output: str
) -> dict[str, Path]:
    """Write the graph with the added nodes and their output, its external data beside it, and return the files."""
    model = checked.model
    model.graph.node.extend(graph.nodes)
    model.graph.initializer.extend(graph.weights)
    model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", None]))
    for name in checked.external:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path.parent / name, work / name)
    # Its own weights stay where they are: a graph with external data has no large ones inside.
    return save_model(model, work / GRAPH) | {name: work / name for name in checked.external}


def score_output(model: onnx.ModelProto, named: str | None) -> str:
    """Choose the tensor of scores: named by the caller, "logits", or the only matrix of floats."""
    outputs = _float_outputs(model)
    if named is not None:
        return _named(outputs, named)
    if LOGITS in outputs:
        return LOGITS
    matrices = [name for name, item in outputs.items() if len(shape_of(item) or []) == 2]
    if len(matrices) != 1:
        raise InvalidModel(
            "model graph does not tell which output holds the scores",
            hint='Name it in the metadata with the key "classificationProbOutput" or "regressionOutput".',
        )
    return matrices[0]


def _measured(
    checked: CheckedModel,
    files: dict[str, Path],
    inputs: tuple[str, ...],
    output: str,
    pooling: Pooling | None,
) -> Ready:
    width = measure_dimensions(files[GRAPH], graph_feed(checked.model, inputs), output)
    return Ready(files, inputs, output, width, pooling)


def graph_feed(model: onnx.ModelProto, inputs: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Return a feed of two tokens for a trial run."""
    return {name: np.ones((1, 2), _numpy_type(model, name)) for name in inputs}


def token_inputs(model: onnx.ModelProto, needed: tuple[str, ...] = INPUTS) -> tuple[str, ...]:
    """Return the token tensors that a graph takes; raise InvalidModel when it takes others or lacks one of `needed`."""
    found = {item.name: item for item in graph_inputs(model)}
    for name, item in found.items():
        if name not in TOKEN_SOURCES or element_type(item) not in _INTEGERS:
            raise InvalidModel(
                f'model input "{name}" cannot be filled from text',
                detail=f"Known inputs are {', '.join(TOKEN_SOURCES)}, all of integers.",
            )
    missing = [name for name in needed if name not in found]
    if missing:
        raise InvalidModel(f'model graph has no input "{missing[0]}"')
    return tuple(name for name in TOKEN_SOURCES if name in found)


def _numpy_type(model: onnx.ModelProto, name: str) -> np.dtype[Any]:
    item = next(item for item in model.graph.input if item.name == name)
    return helper.tensor_dtype_to_np_dtype(element_type(item))


def _float_outputs(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    return {item.name: item for item in model.graph.output if element_type(item) == TensorProto.FLOAT}


def _named(outputs: Iterable[str], name: str) -> str:
    if name not in outputs:
        raise InvalidParameter(
            f'"{name}" in the JSON metadata is not a model output',
            hint=f"The model has the float32 outputs {', '.join(outputs)}.",
        )
    return name


def _embedding_output(model: onnx.ModelProto, named: str | None) -> onnx.ValueInfoProto:
    """Choose the output: named by the caller, the usual name of a finished embedding, token vectors, the only matrix.

    A BERT export may have `last_hidden_state` and `pooler_output`: the second is a matrix too, but not the embedding.
    """
    outputs = _float_outputs(model)
    if named is not None and (named in outputs or named != OUTPUT):
        return outputs[_named(outputs, named)]
    for name in (_SENTENCE_OUTPUT, *_TOKEN_OUTPUTS):
        if name in outputs:
            return outputs[name]
    candidates = [item for item in outputs.values() if len(shape_of(item) or []) in {2, 3}]
    if len(candidates) != 1:
        raise InvalidModel(
            "model graph does not tell which output is the embedding",
            hint='Name it in the metadata with the key "embeddingOutput".',
        )
    return candidates[0]


def _is_per_token(output: onnx.ValueInfoProto) -> bool:
    shape = shape_of(output)
    return len(shape) == 3 if shape is not None else output.name in _TOKEN_OUTPUTS
