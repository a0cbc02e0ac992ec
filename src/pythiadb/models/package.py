"""What the database stores for one model: a few named files and a specification.

A *package* is complete: a machine that has its files and its specification can run the model without anything else. The
*graph* is an ONNX file; for embeddings, pooling and normalisation are nodes of the graph, so every caller gets the same
numbers. What turns SQL values into tensors (tokenizer, image preprocessing, defaults for NULL) and outputs into answers
(labels, softmax) is in the specification.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pythiadb.errors import FeatureNotSupported, InvalidModel

FORMAT = 2  # raised when an older engine could not run a newer package
GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"

FUNCTIONS = ("embedding", "regression", "classification", "clustering")
SOURCES = ("ids", "mask", "types", "text", "number", "image")
ATTRIBUTE_TYPES = ("text", "number", "vector", "blob")
ROLES = ("embedding", "regression", "probability", "label", "score", "distance")
RESULTS = ("double precision", "numeric", "text", "vector")
_STORED_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Attribute:
    """What SQL calls an input (`USING text AS DATA`). Names are compared without regard to case.

    Types: text; number (anything PostgreSQL can cast to double precision or bigint); vector (an array of numbers, or a
    pgvector value, that fills the last dimension of a tensor); blob (bytes).
    """

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Input:
    """One tensor of the graph and where its values come from.

    Sources: `ids`, `mask`, `types` come out of the tokenizer (one text attribute, or two that are encoded as a pair);
    `text` is a string tensor and `number` a numeric or boolean one, a column for each attribute, or all columns from one
    attribute of type vector; `image` is a pixel tensor made of one blob, or the blob itself where the graph decodes it.
    """

    tensor: str
    source: str
    attributes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Spec:
    """How to run a package, small enough to travel with a call.

    `outputs` maps a role to a tensor: embedding; regression; probability and label (classification), or label and score, one
    number a row that is no probability; probability and distance (clustering). `result` is the SQL type of PREDICTION, CLUSTER_ID or VECTOR_EMBEDDING. `labels` are the
    classes in the order of the probabilities; None numbers them from 1. `image` holds the parameters of
    models/images.py. `prefix` is put before every text. `max_tokens` counts special tokens too.
    """

    function: str
    inputs: tuple[Input, ...]
    outputs: Mapping[str, str]
    attributes: tuple[Attribute, ...]
    result: str
    graph: str = GRAPH
    tokenizer: str | None = None
    max_tokens: int | None = None
    prefix: str | None = None
    image: Mapping[str, Any] | None = None
    dimensions: int | None = None
    labels: tuple[str | int | float, ...] | None = None
    normalize_prob: str = "none"
    default_on_null: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT

    def attribute(self, name: str) -> Attribute | None:
        """Return the attribute of a name, whatever its case."""
        return next((a for a in self.attributes if a.name.upper() == name.upper()), None)

    @property
    def is_pair(self) -> bool:
        """Tell whether the tokenizer gets two texts at once, as rerankers want them."""
        return any(i.source == "ids" and len(i.attributes) == 2 for i in self.inputs)

    def to_json(self) -> dict[str, Any]:
        """Return the specification as a JSON object with keys in a fixed order."""
        return {
            "format": self.format,
            "function": self.function,
            "graph": self.graph,
            "inputs": [
                {"tensor": i.tensor, "source": i.source, "attributes": list(i.attributes)}
                for i in self.inputs
            ],
            "outputs": dict(self.outputs),
            "attributes": [{"name": a.name, "type": a.type} for a in self.attributes],
            "result": self.result,
            "tokenizer": self.tokenizer,
            "max_tokens": self.max_tokens,
            "prefix": self.prefix,
            "image": None if self.image is None else dict(self.image),
            "dimensions": self.dimensions,
            "labels": None if self.labels is None else list(self.labels),
            "normalize_prob": self.normalize_prob,
            "default_on_null": dict(self.default_on_null),
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
        missing = [name for name in _CHECKS if name not in data]
        if missing:
            raise InvalidModel(f"model specification lacks {', '.join(missing)}")
        for name, check in _CHECKS.items():
            if not check(data[name]):
                raise InvalidModel(f'invalid value for "{name}" in model specification: {data[name]!r}')
        values: dict[str, Any] = {name: data[name] for name in _CHECKS}
        inputs = tuple(Input(i["tensor"], i["source"], tuple(i["attributes"])) for i in data["inputs"])
        attributes = tuple(Attribute(a["name"], a["type"]) for a in data["attributes"])
        labels = None if data["labels"] is None else tuple(data["labels"])
        return replace(cls(**values), inputs=inputs, attributes=attributes, labels=labels)


@dataclass(frozen=True, slots=True)
class Package:
    """A model on disk: its specification, its files by stored name, and the metadata as given or derived.

    Files that the graph refers to (external data) lie beside the graph under their stored names.
    """

    spec: Spec
    files: Mapping[str, Path]
    metadata: dict[str, Any] = field(default_factory=dict)


def is_stored_name(name: str) -> bool:
    """Tell whether the database can store a file under a name, as pythia.model_file demands."""
    return _STORED_NAME.fullmatch(name) is not None


def safe_name(name: str) -> bool:
    """Tell whether a stored file name stays inside its folder: relative, no "..", no NUL, no other system's paths."""
    if not name or "\\" in name or "\0" in name or ":" in name:
        return False
    path = PurePosixPath(name)
    # "*/" starts ONNX Runtime's marker for data that lies at a memory address.
    return not path.is_absolute() and ".." not in path.parts and path.parts[:1] not in {(), ("*",)}


def _json_object(value: str | bytes | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidModel("model specification is not valid JSON", detail=f"{error}.") from error
    if not isinstance(value, Mapping):
        raise InvalidModel("model specification is not a JSON object")
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_file(value: object) -> bool:
    return isinstance(value, str) and safe_name(value)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_input(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and _is_text(value.get("tensor"))
        and value.get("source") in SOURCES
        and _is_list(value.get("attributes"))
        and len(value["attributes"]) > 0
        and all(map(_is_text, value["attributes"]))
    )


def _is_attribute(value: Any) -> bool:
    return isinstance(value, Mapping) and _is_text(value.get("name")) and value.get("type") in ATTRIBUTE_TYPES


def _is_outputs(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(role in ROLES and _is_text(name) for role, name in value.items())
    )


def _is_label(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


_CHECKS: dict[str, Any] = {
    "format": _is_count,
    "function": lambda v: v in FUNCTIONS,
    "graph": _is_file,
    "inputs": lambda v: _is_list(v) and len(v) > 0 and all(map(_is_input, v)),
    "outputs": _is_outputs,
    "attributes": lambda v: _is_list(v) and len(v) > 0 and all(map(_is_attribute, v)),
    "result": lambda v: v in RESULTS,
    "tokenizer": lambda v: v is None or _is_file(v),
    "max_tokens": lambda v: v is None or _is_count(v),
    "prefix": lambda v: v is None or isinstance(v, str),
    "image": lambda v: v is None or isinstance(v, Mapping),
    "dimensions": lambda v: v is None or _is_count(v),
    "labels": lambda v: v is None or (_is_list(v) and len(v) > 0 and all(map(_is_label, v))),
    "normalize_prob": lambda v: v in ("none", "softmax"),
    "default_on_null": lambda v: isinstance(v, Mapping) and all(isinstance(x, str) for x in v.values()),
}
