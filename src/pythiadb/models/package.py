"""What the database stores for one model: a few named files and a specification.

A *package* is complete: a machine that has its files and its specification can run the model without anything else. The
*graph* is an ONNX file with an output that is the final embedding, float32 [batch, dimensions]: pooling and normalisation
are nodes of the graph, so every caller gets the same numbers. The *tokenizer* lies beside the graph; without one the graph
takes strings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from pythiadb.errors import FeatureNotSupported, InvalidModel

FORMAT = 1  # raised when an older engine could not run a newer package
GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class Spec:
    """How to run a package, small enough to travel with a call.

    `inputs` are the names of the graph inputs in use, in the order of their roles: token ids, attention mask, token types;
    or the one string input. `output` names the float32 [batch, dimensions] tensor. `attributes` are the names that SQL uses
    (`USING text AS DATA`). `max_tokens` counts special tokens too.
    """

    format: int
    function: str
    graph: str
    tokenizer: str | None
    max_tokens: int | None
    inputs: tuple[str, ...]
    output: str
    dimensions: int
    attributes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the specification as a JSON object with keys in a fixed order."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, value: str | bytes | Mapping[str, Any]) -> Spec:
        """Read a specification that `to_json` wrote.

        Raise FeatureNotSupported for a format that this version does not know, InvalidModel for anything malformed.
        """
        data = _json_object(value)
        if data.get("format") != FORMAT:
            raise FeatureNotSupported(
                f"model package format {data.get('format')!r} is not supported",
                detail=f"This version reads format {FORMAT}.",
                hint="Upgrade pythiadb, or load the model again.",
            )
        names = [entry.name for entry in fields(cls)]
        missing = [name for name in names if name not in data]
        if missing:
            raise InvalidModel(f"model specification lacks {', '.join(missing)}")
        for name in names:
            _check_field(name, data[name])
        values: dict[str, Any] = {n: tuple(data[n]) if n in _NAME_LISTS else data[n] for n in names}
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Package:
    """A model on disk: its specification, its files by stored name, and the metadata as given or derived.

    Files that the graph refers to (external data) lie beside the graph under their stored names.
    """

    spec: Spec
    files: Mapping[str, Path]
    metadata: dict[str, Any] = field(default_factory=dict)


def safe_name(name: str) -> bool:
    """Tell whether a stored file name stays inside its folder: relative, no "..", no NUL, no other system's paths."""
    if not name or "\\" in name or "\0" in name or ":" in name:
        return False
    path = PurePosixPath(name)
    # "*/" starts ONNX Runtime's marker for data that lies at a memory address.
    return not path.is_absolute() and ".." not in path.parts and path.parts[:1] not in {(), ("*",)}


_NAME_LISTS = ("inputs", "attributes")
_COUNTS = ("dimensions", "max_tokens")
_FILES = ("graph", "tokenizer")
_OPTIONAL = ("tokenizer", "max_tokens")


def _json_object(value: str | bytes | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidModel("model specification is not valid JSON", detail=f"{error}.") from error
    if not isinstance(value, Mapping):
        raise InvalidModel("model specification is not a JSON object")
    return value


def _check_field(name: str, value: object) -> None:
    if value is None and name in _OPTIONAL:
        return
    if name in _NAME_LISTS:
        good = _is_name_list(value)
    elif name in _COUNTS or name == "format":
        good = isinstance(value, int) and not isinstance(value, bool) and value > 0
    else:
        good = isinstance(value, str) and value != "" and (name not in _FILES or safe_name(value))
    if not good:
        raise InvalidModel(f'invalid value for "{name}" in model specification: {value!r}')


def _is_name_list(value: object) -> bool:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        return False
    return all(isinstance(item, str) and item for item in value)
