"""Oracle's metadata JSON: what a model computes, and how its tensors map to SQL attributes.

Keys are case-sensitive and `function` is the only mandatory one. Keys that describe without binding (pooling, languages, …)
and unknown keys are kept as they are; one that resembles a known key is refused.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pythiadb.errors import InvalidParameter
from pythiadb.models.package import FUNCTIONS

DEFAULT: dict[str, Any] = {
    "function": "embedding",
    "embeddingOutput": "embedding",
    "input": {"input": ["DATA"]},
}

# The output keys of each function, with the role that they give a tensor.
OUTPUT_KEYS: dict[str, dict[str, str]] = {
    "embedding": {"embeddingOutput": "embedding"},
    "regression": {"regressionOutput": "regression"},
    "classification": {"classificationProbOutput": "probability", "classificationLabelOutput": "label"},
    "clustering": {"clusteringProbOutput": "probability", "clusteringDistanceOutput": "distance"},
}
MAX_LABEL_BYTES = 4000

Label = str | int | float

_TYPES: dict[str, tuple[type, ...]] = {
    "function": (str,),
    "input": (dict,),
    **{key: (str,) for keys in OUTPUT_KEYS.values() for key in keys},
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
_EXAMPLES = {
    "input": 'For example: "input": {"float_input": ["AGE", "INCOME"]}.',
    "labels": 'For example: "labels": ["no", "yes"].',
    "defaultOnNull": 'For example: "defaultOnNull": {"AGE": "40"}.',
}
_OTHER_KEYS = ("prefix", "poolingAssumed")  # of this project, for models with a tokenizer
_ALIKE = 0.85  # of two words, from 0 to 1
_WITH_CLASSES = ("classification", "clustering")
_JSON_NAMES = {str: "string", list: "array", dict: "object", bool: "boolean", int: "number", float: "number"}
_IDENTIFIER = re.compile(r"[^\W\d][\w$#]*")
_IDENTIFIER_BYTES = 63  # PostgreSQL's NAMEDATALEN - 1


@dataclass(frozen=True, slots=True)
class Metadata:
    """Metadata after its checks; `raw` is what the caller gave, key for key.

    `inputs` maps a tensor name to its attribute names, in the caller's order; None means that attributes are named after
    the tensors. `outputs` maps roles to the tensors that the caller names. `default_on_null` maps attributes to values.
    """

    function: str
    inputs: Mapping[str, tuple[str, ...]] | None
    raw: dict[str, Any]
    outputs: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[Label, ...] | None = None
    normalize_prob: str = "none"
    default_on_null: Mapping[str, str] = field(default_factory=dict)

    @property
    def embedding_output(self) -> str | None:
        """The tensor named as the embedding."""
        return self.outputs.get("embedding")

    def single_attribute(self) -> str | None:
        """Return the one attribute of an embedding model, or None when the input map is left out.

        Raise InvalidParameter when more than one is named.
        """
        if self.inputs is None:
            return None
        names = [name for group in self.inputs.values() for name in group]
        if len(names) != 1:
            raise InvalidParameter(
                f"an embedding model takes exactly one attribute, the metadata names {len(names)}",
                hint='Write one: "input": {"input": ["DATA"]}.',
            )
        return names[0]


def parse_metadata(value: str | bytes | Mapping[str, Any] | None) -> Metadata:
    """Check a metadata document and return it; None stands for Oracle's default of the load procedures.

    Raise InvalidParameter for a wrong type, an unknown function, a misspelt key, or a key that the function does not have.
    """
    raw = dict(DEFAULT) if value is None else decode(value)
    for key, types in _TYPES.items():
        if key in raw:
            _check_type(key, raw[key], types)
    function = _function(raw)
    _check_keys(raw)
    meta = Metadata(
        function=function,
        inputs=_inputs(raw["input"]) if "input" in raw else None,
        raw=raw,
        outputs=_outputs(raw, function),
        labels=_labels(raw, function),
        normalize_prob=_normalize_prob(raw, function),
        default_on_null=_defaults(raw),
    )
    if function == "embedding":
        meta.single_attribute()
    return meta


def check_attribute_name(name: str, hint: str | None = None) -> None:
    """Raise InvalidParameter unless `name` can be a column of PostgreSQL."""
    if not _IDENTIFIER.fullmatch(name) or len(name.encode("utf-8", "replace")) > _IDENTIFIER_BYTES:
        raise InvalidParameter(
            f'attribute name "{name}" is not a valid identifier',
            hint=hint or "It starts with a letter; letters, digits, _, $ and # may follow, 63 bytes in all.",
        )


def decode(value: str | bytes | Mapping[str, Any]) -> dict[str, Any]:
    """Return a metadata document as an object; raise InvalidParameter when it is none."""
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidParameter("model metadata is not valid JSON", detail=f"{error}.") from error
    if not isinstance(value, Mapping):
        raise InvalidParameter(
            "model metadata must be a JSON object", hint='The least is {"function": "regression"}.'
        )
    return dict(value)


def _check_type(key: str, value: object, types: tuple[type, ...]) -> None:
    good = isinstance(value, types) and (bool in types or not isinstance(value, bool))
    if not good:
        wanted = " or ".join(dict.fromkeys(_JSON_NAMES[entry] for entry in types))
        raise InvalidParameter(f'metadata key "{key}" must be of JSON type {wanted}', hint=_EXAMPLES.get(key))


def _function(raw: Mapping[str, Any]) -> str:
    if "function" not in raw:
        raise InvalidParameter('model metadata lacks the key "function"', hint="Keys are case-sensitive.")
    function: str = raw["function"]
    if function not in FUNCTIONS:
        raise InvalidParameter(
            f'unrecognized model function "{function}"', hint=f"Known functions are {', '.join(FUNCTIONS)}."
        )
    return function


def _check_keys(raw: Mapping[str, Any]) -> None:
    """Refuse a key that looks like a misspelt one: what it means to say would be lost without a word."""
    known = {key.lower(): key for key in (*_TYPES, *_OTHER_KEYS)}
    for key in raw:
        near = [] if key in known.values() else difflib.get_close_matches(key.lower(), known, 1, _ALIKE)
        if near:
            raise InvalidParameter(
                f'unrecognized metadata key "{key}"',
                hint=f'Perhaps "{known[near[0]]}" is meant; keys are case-sensitive.',
            )


def _inputs(value: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    inputs: dict[str, tuple[str, ...]] = {}
    seen: set[str] = set()
    for tensor, names in value.items():
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise InvalidParameter(f'metadata key "input" must map "{tensor}" to an array of attribute names')
        for name in names:
            check_attribute_name(name)
            if name.upper() in seen:
                raise InvalidParameter(
                    f'attribute name "{name}" is used more than once',
                    hint="Names of attributes do not differ by upper and lower case alone.",
                )
            seen.add(name.upper())
        inputs[tensor] = tuple(names)
    return inputs


def _outputs(raw: Mapping[str, Any], function: str) -> dict[str, str]:
    own = OUTPUT_KEYS[function]
    for owner, keys in OUTPUT_KEYS.items():
        wrong = next((key for key in keys if key in raw and key not in own), None)
        if wrong is not None:
            raise InvalidParameter(
                f'metadata key "{wrong}" is not allowed for function "{function}"',
                detail=f'It belongs to function "{owner}".',
                hint=f"The output keys of {function} are {', '.join(own)}.",
            )
    return {role: raw[key] for key, role in own.items() if key in raw}


def _labels(raw: Mapping[str, Any], function: str) -> tuple[Label, ...] | None:
    if "labels" not in raw:
        return None
    _needs_classes("labels", function)
    labels: list[Any] = raw["labels"]
    texts = all(isinstance(label, str) for label in labels)
    numbers = all(isinstance(label, int | float) and not isinstance(label, bool) for label in labels)
    if not labels or not (texts or numbers):
        raise InvalidParameter(
            'metadata key "labels" must be an array of strings or an array of numbers',
            hint='Write all as strings, ["1", "other"], to mix them.',
        )
    if function == "clustering" and texts:
        raise InvalidParameter(
            'metadata key "labels" must be an array of numbers for function "clustering"',
            hint="CLUSTER_ID returns a number.",
        )
    check_labels(labels)
    return tuple(labels)


def check_labels(labels: Sequence[Label]) -> None:
    """Raise InvalidParameter for a label that is too long, not finite, not text of PostgreSQL, or there twice."""
    seen: set[Label] = set()
    for label in labels:
        if isinstance(label, str):
            if "\0" in label:
                raise InvalidParameter("a label cannot contain a zero byte")
            size = len(label.encode("utf-8", "replace"))
            if size > MAX_LABEL_BYTES:
                raise InvalidParameter(
                    f'label "{label[:40]}…" has {size} bytes, the limit is {MAX_LABEL_BYTES} bytes'
                )
        elif not _is_finite(label):
            raise InvalidParameter("a label must be a finite number")
        if label in seen:
            raise InvalidParameter(
                f'label "{label}" appears more than once', hint="Give each class a label of its own."
            )
        seen.add(label)


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond double precision
        return False


def _normalize_prob(raw: Mapping[str, Any], function: str) -> str:
    if "normalizeProb" not in raw:
        return "none"
    _needs_classes("normalizeProb", function)
    value: str = raw["normalizeProb"]
    if value not in ("none", "softmax"):
        raise InvalidParameter(
            f'unrecognized value "{value}" of metadata key "normalizeProb"',
            hint='Known values are "none" and "softmax".',
        )
    return value


def _needs_classes(key: str, function: str) -> None:
    if function not in _WITH_CLASSES:
        raise InvalidParameter(
            f'metadata key "{key}" is not allowed for function "{function}"',
            detail="It belongs to the functions classification and clustering.",
            hint="Leave it out; what the graph gives is the answer.",
        )


def _defaults(raw: Mapping[str, Any]) -> dict[str, str]:
    defaults: dict[str, str] = raw.get("defaultOnNull", {})
    for name, value in defaults.items():
        if not isinstance(value, str):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            raise InvalidParameter(
                f'metadata key "defaultOnNull" must map "{name}" to a string',
                hint=f'Write numbers as strings too: "{value}".' if number else None,
            )
    seen: set[str] = set()
    for name in defaults:
        if name.upper() in seen:
            raise InvalidParameter(
                f'attribute "{name}" appears more than once in "defaultOnNull"',
                hint="Names of attributes do not differ by upper and lower case alone.",
            )
        seen.add(name.upper())
    return dict(defaults)
