"""A package from a Hugging Face or sentence-transformers folder: weights or a ready graph, and the tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from pythiadb.errors import FeatureNotSupported, InvalidModel, InvalidParameter
from pythiadb.models.bert import INPUTS, OUTPUT, WORDS, build_encoder
from pythiadb.models.building import GraphBuilder, save_model
from pythiadb.models.families import read_encoder
from pythiadb.models.metadata import DEFAULT, Metadata, parse_metadata
from pythiadb.models.package import FORMAT, GRAPH, TOKENIZER, Package, Spec
from pythiadb.models.pooling import Pooling, add_pooling, read_json, read_pooling
from pythiadb.models.session import measure_dimensions
from pythiadb.models.tokenizing import Tokenizer
from pythiadb.models.validate import CheckedModel, check_model_file, element_type, graph_inputs, shape_of
from pythiadb.models.weights import has_weights, open_weights

_TOKEN_INPUTS = (*INPUTS, "token_type_ids")
_READY = (GRAPH, f"onnx/{GRAPH}")
_SENTENCE_OUTPUT = "sentence_embedding"
_TOKEN_OUTPUTS = ("last_hidden_state", "token_embeddings")
_ADDED_OUTPUT = "pythia.embedding"
_INTEGERS = (TensorProto.INT64, TensorProto.INT32)
_DEFAULT_TOKENS = 512  # where a ready graph comes without any configuration


def package_from_folder(folder: Path, work: Path, metadata: str | Mapping[str, Any] | None = None) -> Package:
    """Return the package of a model folder; a graph that has to be made is written to the folder `work`.

    Weights (`model.safetensors`) are preferred to a ready graph (`model.onnx`, `onnx/model.onnx`). Without `metadata` it is
    derived from the folder. Raise InvalidModel for a folder that is incomplete or malformed, FeatureNotSupported for an
    architecture, pooling or function that is not served, InvalidParameter for bad metadata.
    """
    meta = parse_metadata(DEFAULT if metadata is None else metadata)
    if not (folder / TOKENIZER).is_file():
        raise InvalidModel(
            f'model folder "{folder.name}" has no {TOKENIZER}',
            hint="Save the tokenizer in the format of the tokenizers library.",
        )
    pooling = read_pooling(folder, meta.raw.get("pooling"))
    if has_weights(folder):
        spec, files = _from_weights(folder, work, pooling)
        facts = _pooling_facts(pooling)
    else:
        spec, files, facts = _from_graph(folder, work, pooling, meta)
    spec = replace(spec, attributes=(meta.single_attribute() or "DATA",))
    known = {**facts, "maxSequenceLength": spec.max_tokens, **meta.raw}
    return Package(spec, {**files, TOKENIZER: folder / TOKENIZER}, known)


def _from_weights(folder: Path, work: Path, pooling: Pooling) -> tuple[Spec, dict[str, Path]]:
    encoder = read_encoder(read_json(folder / "config.json"))
    limit = _max_tokens(folder, encoder.positions)
    vocabulary = Tokenizer(folder / TOKENIZER, limit).vocabulary_size
    with open_weights(folder, encoder.prefixes) as weights:
        model = build_encoder(encoder, weights, pooling, limit)
    rows = next(tensor.dims[0] for tensor in model.graph.initializer if tensor.name == WORDS)
    if vocabulary > rows:
        raise InvalidModel(f"tokenizer has {vocabulary} tokens, the model knows {rows}")
    spec = _spec(limit, INPUTS, OUTPUT, pooling.dimensions(encoder.hidden))
    return spec, save_model(model, work / GRAPH)


def _from_graph(
    folder: Path, work: Path, pooling: Pooling, meta: Metadata
) -> tuple[Spec, dict[str, Path], dict[str, Any]]:
    path = next((folder / name for name in _READY if (folder / name).is_file()), None)
    if path is None:
        raise InvalidModel(
            f'model folder "{folder.name}" has neither weights nor a graph',
            hint=f"It needs model.safetensors with config.json, or {GRAPH}.",
        )
    checked = check_model_file(path)
    inputs = _token_inputs(checked.model)
    limit = _max_tokens(folder, None)
    Tokenizer(folder / TOKENIZER, limit)  # fails now rather than at the first call
    output = _choose_output(checked.model, meta)
    files = {GRAPH: path} | {name: path.parent / name for name in checked.external}
    facts: dict[str, Any] = {}
    name = output.name
    if _is_per_token(output):
        files = _add_pooling(checked, path, work, output, pooling)
        facts = _pooling_facts(pooling)
        name = _ADDED_OUTPUT
    sample = {item: np.ones((1, 2), _numpy_type(checked.model, item)) for item in inputs}
    width = measure_dimensions(files[GRAPH], sample, name)
    return _spec(limit, inputs, name, width), files, facts


def _spec(limit: int, inputs: tuple[str, ...], output: str, dimensions: int) -> Spec:
    return Spec(FORMAT, "embedding", GRAPH, TOKENIZER, limit, inputs, output, dimensions, ("DATA",))


def _pooling_facts(pooling: Pooling) -> dict[str, Any]:
    facts: dict[str, Any] = {"pooling": "+".join(pooling.modes), "normalization": pooling.normalize}
    if pooling.assumed:
        facts["poolingAssumed"] = True
    return facts


def _max_tokens(folder: Path, positions: int | None) -> int:
    """Return the longest input in tokens: what sentence-transformers says, else the tokenizer's limit, else the positions."""
    limits = [positions] if positions else []
    for name, key in (
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    ):
        path = folder / name
        limit = read_json(path).get(key) if path.is_file() else None
        if isinstance(limit, int | float) and not isinstance(limit, bool) and limit >= 1:
            limits.append(int(limit))
            break
    if not positions:
        limits.append(_config_positions(folder))
    return min(limits)


def _config_positions(folder: Path) -> int:
    path = folder / "config.json"
    if not path.is_file():
        return _DEFAULT_TOKENS
    config = read_json(path)
    try:
        return read_encoder(config).positions
    except (
        FeatureNotSupported,
        InvalidModel,
    ):  # a graph may come from a family that cannot be built from weights
        found = config.get("max_position_embeddings")
        return found if isinstance(found, int) and found > 0 else _DEFAULT_TOKENS


def _token_inputs(model: onnx.ModelProto) -> tuple[str, ...]:
    found = {item.name: item for item in graph_inputs(model)}
    for name, item in found.items():
        if name not in _TOKEN_INPUTS or element_type(item) not in _INTEGERS:
            raise InvalidModel(
                f'model input "{name}" cannot be filled from text',
                detail=f"Known inputs are {', '.join(_TOKEN_INPUTS)}, all of integers.",
            )
    missing = [name for name in INPUTS if name not in found]
    if missing:
        raise InvalidModel(f'model graph has no input "{missing[0]}"')
    return tuple(name for name in _TOKEN_INPUTS if name in found)


def _numpy_type(model: onnx.ModelProto, name: str) -> np.dtype[Any]:
    item = next(item for item in model.graph.input if item.name == name)
    return helper.tensor_dtype_to_np_dtype(element_type(item))


def _choose_output(model: onnx.ModelProto, meta: Metadata) -> onnx.ValueInfoProto:
    """Choose the output: named by the caller, the usual name of a finished embedding, token vectors, the only matrix.

    A BERT export may have `last_hidden_state` and `pooler_output`: the second is a matrix too, but not the embedding.
    """
    outputs: dict[str, onnx.ValueInfoProto] = {
        item.name: item for item in model.graph.output if element_type(item) == TensorProto.FLOAT
    }
    named = meta.embedding_output
    if named is not None and named in outputs:
        return outputs[named]
    if named is not None and named != OUTPUT:
        raise InvalidParameter(
            f'"{named}" in the JSON metadata is not a model output',
            hint=f"The model has the float32 outputs {', '.join(outputs)}.",
        )
    for name in (_SENTENCE_OUTPUT, *_TOKEN_OUTPUTS):
        if name in outputs:
            return outputs[name]
    candidates: list[onnx.ValueInfoProto] = [
        item for item in outputs.values() if len(shape_of(item) or []) in {2, 3}
    ]
    if len(candidates) != 1:
        raise InvalidModel(
            "model graph does not tell which output is the embedding",
            hint='Name it in the metadata with the key "embeddingOutput".',
        )
    return candidates[0]


def _is_per_token(output: onnx.ValueInfoProto) -> bool:
    shape = shape_of(output)
    return len(shape) == 3 if shape is not None else output.name in _TOKEN_OUTPUTS


def _add_pooling(
    checked: CheckedModel, path: Path, work: Path, output: onnx.ValueInfoProto, pooling: Pooling
) -> dict[str, Path]:
    """Write the graph with pooling nodes after `output`, its external data beside it, and return the files."""
    model = checked.model
    opset = next(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"})
    added = GraphBuilder("pythia.", opset)
    add_pooling(added, output.name, INPUTS[1], pooling, _ADDED_OUTPUT)
    model.graph.node.extend(added.nodes)
    model.graph.initializer.extend(added.weights)
    made = helper.make_tensor_value_info(_ADDED_OUTPUT, TensorProto.FLOAT, ["batch", None])
    model.graph.output.append(made)
    for name in checked.external:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path.parent / name, work / name)
    return save_model(model, work / GRAPH) | {name: work / name for name in checked.external}
