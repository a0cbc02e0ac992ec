"""Oracle's metadata JSON: what a model computes, and how its tensors map to SQL attributes.

Keys are case-sensitive and `function` is the only mandatory one. Keys that describe without binding (pooling, languages, …)
and unknown keys are kept as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pythiadb.errors import FeatureNotSupported, InvalidParameter

FUNCTIONS = ("embedding", "regression", "classification", "clustering")
SERVED = ("embedding",)
DEFAULT: dict[str, Any] = {
    "function": "embedding",
    "embeddingOutput": "embedding",
    "input": {"input": ["DATA"]},
}

_TYPES: dict[str, tuple[type, ...]] = {
    "function": (str,),
    "input": (dict,),
    "regressionOutput": (str,),
    "classificationProbOutput": (str,),
    "classificationLabelOutput": (str,),
    "clusteringProbOutput": (str,),
    "clusteringDistanceOutput": (str,),
    "embeddingOutput": (str,),
    "labels": (list,),
    "normalizeProb": (str,),
    "defaultOnNull": (dict,),
    "normalization": (bool,),
    "maxSequenceLength": (int, float),
    "pooling": (str,),
    "tokenizer": (str,),
    "embeddingLayer": (str,),
    "languages": (str, list),
    "suitableDistanceMetrics": (list,),
    "modelDescription": (dict,),
}
_JSON_NAMES = {str: "string", list: "array", dict: "object", bool: "boolean", int: "number", float: "number"}
_IDENTIFIER = re.compile(r"[^\W\d][\w$#]*")
_IDENTIFIER_BYTES = 63  # PostgreSQL's NAMEDATALEN - 1


@dataclass(frozen=True, slots=True)
class Metadata:
    """Metadata after its checks; `raw` is what the caller gave, key for key.

    `inputs` maps a tensor name to its attribute names, in the caller's order; None means that attributes are named after
    the tensors.
    """

    function: str
    embedding_output: str | None
    inputs: Mapping[str, tuple[str, ...]] | None
    raw: dict[str, Any]

    def single_attribute(self) -> str | None:
        """Return the one attribute of an embedding model, or None when the input map is left out.

        Raise InvalidParameter when more than one is named.
        """
        if self.inputs is None:
            return None
        names = [name for group in self.inputs.values() for name in group]
        if len(names) != 1:
            raise InvalidParameter(
                f"an embedding model takes exactly one attribute, the metadata names {len(names)}"
            )
        return names[0]


def parse_metadata(value: str | bytes | Mapping[str, Any] | None) -> Metadata:
    """Check a metadata document and return it; None stands for Oracle's default of the load procedures.

    Raise InvalidParameter for a wrong type or an unknown function, FeatureNotSupported for a function that is known and
    not served.
    """
    raw = dict(DEFAULT) if value is None else _decode(value)
    for key, types in _TYPES.items():
        if key in raw:
            _check_type(key, raw[key], types)
    return Metadata(
        function=_function(raw),
        embedding_output=raw.get("embeddingOutput"),
        inputs=_inputs(raw["input"]) if "input" in raw else None,
        raw=raw,
    )


def _decode(value: str | bytes | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidParameter("model metadata is not valid JSON", detail=f"{error}.") from error
    if not isinstance(value, Mapping):
        raise InvalidParameter("model metadata must be a JSON object")
    return dict(value)


def _check_type(key: str, value: object, types: tuple[type, ...]) -> None:
    good = isinstance(value, types) and (bool in types or not isinstance(value, bool))
    if not good:
        wanted = " or ".join(dict.fromkeys(_JSON_NAMES[entry] for entry in types))
        raise InvalidParameter(f'metadata key "{key}" must be of JSON type {wanted}')


def _function(raw: Mapping[str, Any]) -> str:
    if "function" not in raw:
        raise InvalidParameter('model metadata lacks the key "function"', hint="Keys are case-sensitive.")
    function: str = raw["function"]
    if function not in FUNCTIONS:
        raise InvalidParameter(
            f'unrecognized model function "{function}"', hint=f"Known functions are {', '.join(FUNCTIONS)}."
        )
    if function not in SERVED:
        raise FeatureNotSupported(f'models with function "{function}" are not supported')
    return function


def _inputs(value: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    inputs: dict[str, tuple[str, ...]] = {}
    seen: set[str] = set()
    for tensor, names in value.items():
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise InvalidParameter(f'metadata key "input" must map "{tensor}" to an array of attribute names')
        for name in names:
            _check_attribute(name, seen)
        inputs[tensor] = tuple(names)
    return inputs


def _check_attribute(name: str, seen: set[str]) -> None:
    if not _IDENTIFIER.fullmatch(name) or len(name.encode("utf-8", "replace")) > _IDENTIFIER_BYTES:
        raise InvalidParameter(f'attribute name "{name}" is not a valid identifier')
    if name.upper() in seen:
        raise InvalidParameter(f'attribute name "{name}" is used more than once')
    seen.add(name.upper())
