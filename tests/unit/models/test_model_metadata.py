"""Oracle's metadata JSON and the stored specification."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pythiadb.errors import FeatureNotSupported, InvalidModel, InvalidParameter
from pythiadb.models.metadata import DEFAULT, parse_metadata
from pythiadb.models.package import Attribute, Input, Spec, safe_name

SPEC = Spec(
    function="embedding",
    inputs=(Input("input_ids", "ids", ("DATA",)), Input("attention_mask", "mask", ("DATA",))),
    outputs={"embedding": "embedding"},
    attributes=(Attribute("DATA", "text"),),
    result="vector",
    tokenizer="tokenizer.json",
    max_tokens=256,
    prefix="query: ",
    dimensions=384,
)
CHURN = Spec(
    function="classification",
    inputs=(Input("X", "number", ("AGE", "VISITS")),),
    outputs={"probability": "probabilities"},
    attributes=(Attribute("AGE", "number"), Attribute("VISITS", "number")),
    result="text",
    labels=("no", "yes"),
    normalize_prob="softmax",
    default_on_null={"AGE": "40"},
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


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"function": "regression", "labels": [1]}, '"labels" is not allowed for function "regression"'),
        ({"function": "classification", "labels": "a"}, '"labels" must be of JSON type array'),
        ({"function": "classification", "labels": []}, "an array of strings or an array of numbers"),
        ({"function": "classification", "labels": ["a", 1]}, "an array of strings or an array of numbers"),
        (
            {"function": "classification", "labels": [True, False]},
            "an array of strings or an array of numbers",
        ),
        ({"function": "classification", "labels": ["a", "b", "a"]}, 'label "a" appears more than once'),
        ({"function": "classification", "labels": [1, 1.0]}, 'label "1.0" appears more than once'),
        ({"function": "classification", "labels": ["ä" * 2001]}, "has 4002 bytes, the limit is 4000 bytes"),
        ({"function": "classification", "labels": ["a\0"]}, "a label cannot contain a zero byte"),
        ('{"function": "classification", "labels": [NaN]}', "a label must be a finite number"),
        ({"function": "classification", "labels": [10**400]}, "a label must be a finite number"),
        ({"function": "clustering", "labels": ["a"]}, 'an array of numbers for function "clustering"'),
        ({"function": "classification", "normalizeProb": "max"}, 'unrecognized value "max"'),
        ({"function": "regression", "normalizeProb": "none"}, "is not allowed for function"),
        ({"function": "embedding", "normalizeProb": "softmax"}, "is not allowed for function"),
        ({"function": "regression", "classificationLabelOutput": "x"}, "is not allowed for function"),
        ({"function": "clustering", "classificationLabelOutput": "x"}, "is not allowed for function"),
        (
            {"function": "classification", "regressionOutput": "x"},
            'not allowed for function "classification"',
        ),
        ({"function": "regression", "defaultOnNull": ["1"]}, "must be of JSON type object"),
        ({"function": "regression", "defaultOnNull": {"A": 1}}, 'must map "A" to a string'),
        ({"function": "regression", "defaultOnNull": {"A": None}}, 'must map "A" to a string'),
        ({"function": "regression", "defaultOnNull": {"A": "1", "a": "2"}}, '"a" appears more than once'),
        (
            {"function": "embedding", "input": {"x": ["A", "B"]}},
            "exactly one attribute, the metadata names 2",
        ),
    ],
)
def test_keys_that_do_not_fit_the_function(value: Any, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        parse_metadata(value)


def test_keys_of_every_function() -> None:
    meta = parse_metadata(
        {
            "function": "classification",
            "classificationProbOutput": "p",
            "classificationLabelOutput": "l",
            "labels": [10, 2.5],
            "normalizeProb": "softmax",
            "defaultOnNull": {"AGE": "40"},
            "input": {"X": ["AGE", "VISITS"], "city": ["CITY"]},
        }
    )
    assert meta.inputs == {"X": ("AGE", "VISITS"), "city": ("CITY",)}
    assert meta.outputs == {"probability": "p", "label": "l"}
    assert (meta.labels, meta.normalize_prob, meta.default_on_null) == ((10, 2.5), "softmax", {"AGE": "40"})
    meta = parse_metadata(
        {"function": "clustering", "clusteringProbOutput": "p", "clusteringDistanceOutput": "d"}
    )
    assert meta.outputs == {"probability": "p", "distance": "d"}
    assert (meta.labels, meta.normalize_prob) == (None, "none")
    assert parse_metadata({"function": "regression", "regressionOutput": "y"}).outputs == {"regression": "y"}


def test_specification_survives_json() -> None:
    text = json.dumps(SPEC.to_json())
    assert Spec.from_json(text) == Spec.from_json(text.encode()) == Spec.from_json(SPEC.to_json()) == SPEC
    assert Spec.from_json(json.dumps(CHURN.to_json())) == CHURN


def test_specification_of_a_later_format() -> None:
    with pytest.raises(FeatureNotSupported, match="model package format 3 is not supported"):
        Spec.from_json({**SPEC.to_json(), "format": 3, "new": True})


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
        ("inputs", [{"tensor": "x", "source": "magic", "attributes": ["A"]}]),
        ("inputs", [{"tensor": "x", "source": "text", "attributes": []}]),
        ("attributes", [{"name": "A", "type": "money"}]),
        ("outputs", {}),
        ("outputs", {"embedding": ""}),
        ("outputs", {"answer": "x"}),
        ("result", "money"),
        ("labels", []),
        ("labels", [True]),
        ("normalize_prob", "max"),
        ("default_on_null", {"A": 1}),
        ("function", "magic"),
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
    with pytest.raises(InvalidModel, match="lacks outputs"):
        Spec.from_json({key: value for key, value in SPEC.to_json().items() if key != "outputs"})


@pytest.mark.parametrize("name", ["model.onnx", "onnx/data.bin", "a b", "..data", "x/*/y"])
def test_names_that_stay_inside(name: str) -> None:
    assert safe_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "/a", "a/../b", "a\\b", "c:x", "a\0", "*/x"])
def test_names_that_do_not(name: str) -> None:
    assert not safe_name(name)
