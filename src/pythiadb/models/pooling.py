"""From one vector a token to one vector a text: pooling and normalisation as graph nodes.

The formulas are those of sentence-transformers (`models/Pooling.py`, `models/Normalize.py`), so a folder made for it gives
the same embeddings here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto

from pythiadb.errors import FeatureNotSupported, InvalidModel
from pythiadb.models.building import GraphBuilder

# In the order in which sentence-transformers concatenates several modes.
MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
}
_MASKED = (
    -1e9
)  # below every activation; what sentence-transformers writes into padded positions before the maximum
_SMALLEST_COUNT = 1e-9


@dataclass(frozen=True, slots=True)
class Pooling:
    """Modes whose results are concatenated, and whether the result is scaled to length 1.

    `assumed` is true when the folder does not say how to pool and the mean was taken. `with_prompt` is false for the few models
    whose prompt's tokens are left out.
    """

    modes: tuple[str, ...]
    normalize: bool
    assumed: bool = False
    with_prompt: bool = True

    def dimensions(self, hidden: int) -> int:
        """Return the length of the embedding for token vectors of length `hidden`."""
        return hidden * len(self.modes)


def read_pooling(folder: Path, default: str | None = None) -> Pooling:
    """Read `modules.json` and the pooling configuration of a sentence-transformers folder.

    Without a `modules.json` the mode is `default` or, as in sentence-transformers, the mean, and nothing is normalised.
    Raise InvalidModel when the files are malformed or name no pooling, FeatureNotSupported for other modules or modes.
    """
    path = folder / "modules.json"
    if not path.exists():
        if default is not None and default not in MODES.values():
            raise FeatureNotSupported(f'pooling "{default}" is not supported', hint=_hint())
        return Pooling((default or "mean",), normalize=False, assumed=default is None)
    modes: tuple[str, ...] = ()
    normalize = False
    with_prompt = True
    for kind, place in read_modules(path):
        if kind == "Pooling":
            config = read_json(folder / place / "config.json")
            modes = _modes(config)
            with_prompt = config.get("include_prompt", True) is not False
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise FeatureNotSupported(f'sentence-transformers module "{kind}" is not supported')
    if not modes:
        raise InvalidModel(f'"{path.name}" names no pooling module')
    return Pooling(modes, normalize, with_prompt=with_prompt)


def add_pooling(graph: GraphBuilder, tokens: str, mask: str, pooling: Pooling, output: str) -> None:
    """Add the nodes from token vectors [batch, tokens, hidden] and the integer mask [batch, tokens] to `output`.

    Only operators whose form did not change since opset 9 are used, because the nodes are also added to foreign graphs.
    """
    weights = graph.node("Cast", mask, to=TensorProto.FLOAT)
    parts = [_POOLS[mode](graph, tokens, weights) for mode in pooling.modes]
    pooled = parts[0] if len(parts) == 1 else graph.node("Concat", *parts, axis=1)
    # LpNormalization leaves a vector of zeros as it is.
    last: dict[str, Any] = {"axis": -1, "p": 2} if pooling.normalize else {}
    graph.node("LpNormalization" if pooling.normalize else "Identity", pooled, output=output, **last)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a model folder; raise InvalidModel when it is missing or malformed."""
    value = _load(path)
    if not isinstance(value, dict):
        raise InvalidModel(f'"{path.name}" is not a JSON object')
    return value


def _load(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidModel(f'could not read "{path.name}": {error.strerror}') from error
    except ValueError as error:
        raise InvalidModel(f'"{path.name}" is not valid JSON', detail=f"{error}.") from error


def read_modules(path: Path) -> list[tuple[str, str]]:
    """Return (last part of the type, folder) of every module of a `modules.json`, in order."""
    value = _load(path)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InvalidModel(f'"{path.name}" is not a list of modules')
    found = [(str(item.get("type", "")).rpartition(".")[2], str(item.get("path", ""))) for item in value]
    for kind, place in found:
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise InvalidModel(f'module "{kind}" lies outside the model folder: "{place}"')
    return found


def _modes(config: Mapping[str, Any]) -> tuple[str, ...]:
    named = config.get("pooling_mode")
    if isinstance(named, str):  # newer folders name one mode
        chosen = {named}
    else:
        chosen = {MODES.get(key, key) for key, on in config.items() if key.startswith("pooling_mode_") and on}
    unknown = sorted(chosen - set(MODES.values()))
    if unknown:
        raise FeatureNotSupported(f'pooling "{unknown[0]}" is not supported', hint=_hint())
    return tuple(mode for mode in MODES.values() if mode in chosen)


def _hint() -> str:
    return f"Known poolings are {', '.join(MODES.values())}."


def _first(graph: GraphBuilder, tokens: str, weights: str) -> str:  # noqa: ARG001 - one signature for all pools
    return graph.node("Gather", tokens, graph.weight("first", np.array(0, dtype=np.int64)), axis=1)


def _mean(graph: GraphBuilder, tokens: str, weights: str) -> str:
    row = graph.node("Reshape", weights, graph.integers(0, 1, -1))
    total = graph.node("Reshape", graph.node("MatMul", row, tokens), graph.integers(0, -1))
    column = graph.node("Reshape", weights, graph.integers(0, -1, 1))
    # The mask holds 0 and 1, so its product with itself counts the tokens.
    count = graph.node("Reshape", graph.node("MatMul", row, column), graph.integers(0, 1))
    floor = graph.weight("smallest_count", np.array(_SMALLEST_COUNT, dtype=np.float32))
    return graph.node("Div", total, graph.node("Max", count, floor))


def _maximum(graph: GraphBuilder, tokens: str, weights: str) -> str:
    kept = graph.node("Cast", graph.node("Reshape", weights, graph.integers(0, -1, 1)), to=TensorProto.BOOL)
    floor = graph.weight("masked", np.array(_MASKED, dtype=np.float32))
    values = graph.node("Where", kept, tokens, floor)
    if graph.opset >= 18:  # axes became an input
        return graph.node("ReduceMax", values, graph.integers(1), keepdims=0)
    return graph.node("ReduceMax", values, axes=[1], keepdims=0)


_POOLS = {"cls": _first, "max": _maximum, "mean": _mean}
