"""Static embeddings: a table with one vector a token, the mean of a text's vectors, no network.

Read are folders of sentence-transformers (module StaticEmbedding), of model2vec, and any other whose weights are one table
`embedding.weight` or `embeddings`. As there, no special tokens are put around a text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from pythiadb.errors import FeatureNotSupported, InvalidModel
from pythiadb.models.bert import INPUTS, OUTPUT
from pythiadb.models.building import GraphBuilder, save_model, token_model
from pythiadb.models.package import GRAPH, TOKENIZER, Input, Package, Spec
from pythiadb.models.pooling import Pooling, add_pooling, read_modules
from pythiadb.models.ready import TOKEN_SOURCES
from pythiadb.models.source import Source, text_attributes
from pythiadb.models.text_folder import find_prefix
from pythiadb.models.tokenizing import Tokenizer
from pythiadb.models.vocabulary import tokenizer_file
from pythiadb.models.weights import Weights, has_weights, open_weights

_TABLES = ("embedding.weight", "embeddings")
_MODULE = "StaticEmbedding"
# The libraries do not cut long texts. Vectors of all tokens are in memory at once: 64 MiB at 256 dimensions.
_MAX_TOKENS = 1 << 16
_MODEL2VEC = "model2vec"
_MODEL2VEC_TOKENS = 512  # the default of its encode()


@dataclass(frozen=True, slots=True)
class _Table:
    """Where the table lies, and what is done beside the mean: `skipped` is a token that does not count."""

    folder: Path
    name: str
    normalize: bool
    max_tokens: int
    skips_unknown: bool


def is_static(source: Source) -> bool:
    """Tell whether a folder holds a table of vectors instead of a network."""
    return _find(source) is not None


def static_package(source: Source) -> Package:
    """Return the package of a static embedding.

    Raise InvalidModel for a folder that is incomplete or malformed, InvalidParameter for metadata that do not fit.
    """
    if source.function not in (None, "embedding"):
        raise FeatureNotSupported(f'function "{source.function}" cannot be made out of a table of embeddings')
    table = _find(source)
    assert table is not None
    tokenizer = tokenizer_file(replace(source, folder=table.folder), special_tokens=False)
    vocabulary = Tokenizer(tokenizer, table.max_tokens).vocabulary_size
    with open_weights(table.folder) as weights:
        model, width = _build(
            table, weights, vocabulary, _unknown(tokenizer) if table.skips_unknown else None
        )
    (name,) = source.attributes(("DATA",), 1)
    spec = Spec(
        function="embedding",
        inputs=tuple(Input(tensor, TOKEN_SOURCES[tensor], (name,)) for tensor in INPUTS),
        outputs={"embedding": OUTPUT},
        attributes=text_attributes((name,)),
        result="vector",
        tokenizer=TOKENIZER,
        max_tokens=min([table.max_tokens, *source.longest()]),
        prefix=find_prefix(source, None),
        dimensions=width,
    )
    facts = {"pooling": "mean", "normalization": table.normalize, "maxSequenceLength": spec.max_tokens}
    return source.package(spec, {**save_model(model, source.work / GRAPH), TOKENIZER: tokenizer}, facts)


def _find(source: Source) -> _Table | None:
    if source.has("modules.json"):
        return _from_modules(source)
    if not has_weights(source.folder):
        return None
    with open_weights(source.folder) as weights:
        name = next((name for name in _TABLES if weights.has(name)), None)
    if name is None:
        return None
    if source.config.get("model_type") == _MODEL2VEC:
        return _Table(
            source.folder,
            name,
            bool(source.config.get("normalize", True)),
            _MODEL2VEC_TOKENS,
            skips_unknown=True,
        )
    normalize = bool(source.given.get("normalization", False))
    return _Table(source.folder, name, normalize, _MAX_TOKENS, skips_unknown=False)


def _from_modules(source: Source) -> _Table | None:
    modules = read_modules(source.folder / "modules.json")
    if not modules or modules[0][0] != _MODULE:
        return None
    normalize = False
    for kind, _ in modules[1:]:
        if kind != "Normalize":
            raise FeatureNotSupported(f'sentence-transformers module "{kind}" is not supported')
        normalize = True
    folder = source.folder / modules[0][1]
    with open_weights(folder) as weights:
        name = next((name for name in _TABLES if weights.has(name)), None)
    if name is None:
        raise InvalidModel(f"model weights lack {' and '.join(_TABLES)}")
    return _Table(folder, name, normalize, _MAX_TOKENS, skips_unknown=False)


def _build(
    table: _Table, weights: Weights, vocabulary: int, skipped: int | None
) -> tuple[onnx.ModelProto, int]:
    rows = weights.get(table.name, (0, 0))
    mapping = weights.integers("mapping") if weights.has("mapping") else None
    factors = weights.get("weights", (0,)) if weights.has("weights") else None
    known = min(len(part) for part in (mapping if mapping is not None else rows, factors) if part is not None)
    if vocabulary > known or (mapping is not None and not 0 <= mapping.min() <= mapping.max() < len(rows)):
        raise InvalidModel(f"tokenizer has {vocabulary} tokens, the model knows {known}")
    graph = GraphBuilder()
    ids, mask = INPUTS
    places = ids if mapping is None else graph.node("Gather", graph.weight("mapping", mapping), ids)
    vectors = graph.node("Gather", graph.weight("words", rows), places)
    if factors is not None:
        column = graph.weight("weights", factors[:, np.newaxis])
        vectors = graph.node("Mul", vectors, graph.node("Gather", column, ids))
    if skipped is not None:
        counted = graph.node("Not", graph.node("Equal", ids, graph.integer(skipped)))
        mask = graph.node("Mul", mask, graph.node("Cast", counted, to=TensorProto.INT64))
    add_pooling(graph, vectors, mask, Pooling(("mean",), table.normalize), OUTPUT)
    width = int(rows.shape[1])
    return token_model(graph, "static embedding", INPUTS, OUTPUT, width), width


def _unknown(tokenizer: Path) -> int | None:
    """Return the id of the token for what the vocabulary lacks, None when there is none."""
    model: Mapping[str, Any] = json.loads(tokenizer.read_text(encoding="utf-8")).get("model", {})
    if model.get("type") == "Unigram":
        found = model.get("unk_id")
        return found if isinstance(found, int) else None
    name, vocabulary = model.get("unk_token"), model.get("vocab", {})
    found = vocabulary.get(name) if name is not None else None
    return found if isinstance(found, int) else None
