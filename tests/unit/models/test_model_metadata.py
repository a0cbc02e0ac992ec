"""Oracle's metadata JSON and the stored specification."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pythiadb.errors import FeatureNotSupported, InvalidModel, InvalidParameter
from pythiadb.models.metadata import DEFAULT, parse_metadata
from pythiadb.models.package import Spec, safe_name

SPEC = Spec(
    format=1,
    function="embedding",
    graph="model.onnx",
    tokenizer="tokenizer.json",
    max_tokens=256,
    inputs=("input_ids", "attention_mask"),
    output="embedding",
    dimensions=384,
    attributes=("DATA",),
)


def test_none_is_oracles_default() -> None:
    meta = parse_metadata(None)
    assert (meta.function, meta.embedding_output) == ("embedding", "embedding")
    assert meta.inputs == {"input": ("DATA",)}
    assert meta.single_attribute() == "DATA"
    assert meta.raw == DEFAULT


def test_only_function_is_mandatory_and_other_keys_are_kept() -> None:
    meta = parse_metadata('{"function": "embedding", "modelDescription": {"x": 1}, "mine": [1]}')
    assert (meta.embedding_output, meta.inputs, meta.single_attribute()) == (None, None, None)
    assert meta.raw["mine"] == [1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "model metadata is not valid JSON"),
        ("[]", "model metadata must be a JSON object"),
        ({}, 'lacks the key "function"'),
        ({"Function": "embedding"}, 'lacks the key "function"'),
        ({"function": 3}, '"function" must be of JSON type string'),
        ({"function": "magic"}, 'unrecognized model function "magic"'),
        ({"function": "embedding", "input": []}, '"input" must be of JSON type object'),
        ({"function": "embedding", "input": {"a": "DATA"}}, 'must map "a" to an array'),
        ({"function": "embedding", "input": {"a": []}}, 'must map "a" to an array'),
        ({"function": "embedding", "input": {"a": ["1x"]}}, '"1x" is not a valid identifier'),
        ({"function": "embedding", "input": {"a": ["x" * 64]}}, "is not a valid identifier"),
        ({"function": "embedding", "input": {"a": ["X"], "b": ["x"]}}, '"x" is used more than once'),
        ({"function": "embedding", "embeddingOutput": None}, "must be of JSON type string"),
        ({"function": "embedding", "normalization": "yes"}, "must be of JSON type boolean"),
        ({"function": "embedding", "maxSequenceLength": True}, "must be of JSON type number"),
        ({"function": "embedding", "suitableDistanceMetrics": "COSINE"}, "must be of JSON type array"),
    ],
)
def test_metadata_that_is_refused(value: Any, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        parse_metadata(value)


@pytest.mark.parametrize("function", ["regression", "classification", "clustering"])
def test_functions_that_come_later(function: str) -> None:
    with pytest.raises(FeatureNotSupported, match=f'"{function}"'):
        parse_metadata({"function": function})


def test_specification_survives_json() -> None:
    text = json.dumps(SPEC.to_json())
    assert Spec.from_json(text) == Spec.from_json(text.encode()) == Spec.from_json(SPEC.to_json()) == SPEC


def test_specification_of_a_later_format() -> None:
    with pytest.raises(FeatureNotSupported, match="model package format 2 is not supported"):
        Spec.from_json({**SPEC.to_json(), "format": 2, "new": True})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("graph", "../model.onnx"),
        ("graph", None),
        ("tokenizer", "/etc/passwd"),
        ("max_tokens", 0),
        ("max_tokens", "256"),
        ("inputs", []),
        ("inputs", "input"),
        ("inputs", [1]),
        ("output", ""),
        ("dimensions", -1),
        ("dimensions", True),
    ],
)
def test_specification_with_a_wrong_value(key: str, value: object) -> None:
    with pytest.raises(InvalidModel, match=f'invalid value for "{key}" in model specification'):
        Spec.from_json({**SPEC.to_json(), key: value})


def test_specification_that_is_malformed() -> None:
    with pytest.raises(InvalidModel, match="not valid JSON"):
        Spec.from_json("{")
    with pytest.raises(InvalidModel, match="not a JSON object"):
        Spec.from_json("[1]")
    with pytest.raises(InvalidModel, match="lacks output"):
        Spec.from_json({key: value for key, value in SPEC.to_json().items() if key != "output"})


@pytest.mark.parametrize("name", ["model.onnx", "onnx/data.bin", "a b", "..data", "x/*/y"])
def test_names_that_stay_inside(name: str) -> None:
    assert safe_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "/a", "a/../b", "a\\b", "c:x", "a\0", "*/x"])
def test_names_that_do_not(name: str) -> None:
    assert not safe_name(name)
