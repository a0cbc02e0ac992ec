"""Metadata and graphs that do not fit: each fault has an error that names it, with a hint what to do."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import logit_graph, pair_graph, random_factors, string_graph, tabular_graph

from pythiadb.errors import (
    FeatureNotSupported,
    InvalidModel,
    InvalidParameter,
    LimitExceeded,
    RunStopped,
    WrongObjectType,
)
from pythiadb.models.metadata import parse_metadata
from pythiadb.models.onnx_file import package_from_onnx
from pythiadb.models.operators import OPERATORS, answers, check_operator
from pythiadb.models.package import Attribute, Input, Spec
from pythiadb.models.probe import probe
from pythiadb.models.session import Model, open_model
from pythiadb.recommend.export import METADATA, onnx_model

CLASSES = {"function": "classification", "input": {"x": ["A", "B", "C"]}}
SUM = {"function": "regression", "input": {"x": ["A", "B", "C"]}}


def classifier(label_shape: list[Any] | None = None, kind: int = TensorProto.INT64) -> onnx.ModelProto:
    """Return `logit_graph` with a second output of labels, constant."""
    model = logit_graph(columns=3)
    if label_shape is not None:
        values = np.arange(7, 7 + int(np.prod(label_shape))).reshape(label_shape)
        tensor = numpy_helper.from_array(
            values.astype(np.int64) if kind == TensorProto.INT64 else values.astype(np.float32), "constant"
        )
        model.graph.initializer.append(tensor)
        model.graph.node.append(helper.make_node("Identity", ["constant"], ["classes"]))
        model.graph.output.append(helper.make_tensor_value_info("classes", kind, label_shape))
    return model


def two_inputs(first: list[Any], second: list[Any], kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(n, kind, s) for n, s in (("one", first), ("two", second))]
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Add", ["one", "two"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(nodes, "two", inputs, [made])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


FAULTS: list[tuple[onnx.ModelProto, Any, type[Exception], str, str]] = [
    # inputs
    (tabular_graph(), {**SUM, "input": {"X": ["A", "B", "C"]}}, InvalidParameter, 'field "X" in the JSON metadata is not a model input', 'The model input is "x".'),
    (pair_graph(), {"function": "regression", "input": {"first_input": ["A"]}}, InvalidParameter, 'model input "second_input" has no attribute in the JSON metadata', 'Add "second_input" to the key "input".'),
    (pair_graph(), {"function": "regression", "input": {"a": ["A"]}}, InvalidParameter, 'field "a" in the JSON metadata is not a model input', 'The model inputs are "first_input", "second_input".'),
    (tabular_graph(), {**SUM, "input": {"x": ["A", "B"]}}, InvalidParameter, 'model input "x" takes 3 values a row, the metadata name 2 attributes', "Name one attribute for each value"),
    (string_graph(("batch", 2)), {"function": "embedding"}, InvalidParameter, 'model input "input" takes 2 values a row', "Name one attribute for each value"),
    (tabular_graph(shape=("batch", "more")), {"function": "regression"}, InvalidModel, r'tensor "x" contains multiple dimensions \(2\) of variable size', "tokenizer.json"),
    (tabular_graph(shape=(1, "more")), {"function": "regression"}, InvalidModel, "a dimension behind the first is variable", "tokenizer.json"),
    (tabular_graph(shape=("batch", 0)), {"function": "regression"}, InvalidModel, r"has shape \[\?, 0\], which holds nothing", ""),
    (tabular_graph(shape=()), {"function": "regression"}, InvalidModel, 'tensor "x" has no batch dimension', ""),
    (tabular_graph(TensorProto.BFLOAT16), SUM, InvalidModel, 'model input "x" has the type bfloat16, which SQL values cannot fill', ""),
    (two_inputs([2, 1], [3, 1]), {"function": "regression"}, InvalidModel, r'model inputs differ in their fixed batch size: "one" \(2\) and "two" \(3\)', ""),
    (two_inputs(["b"], ["b"]), {"function": "regression", "input": {"one": ["A"], "two": ["a"]}}, InvalidParameter, 'attribute name "a" is used more than once', ""),
    (two_inputs(["b"], ["b"]), {"function": "embedding"}, InvalidModel, "an embedding model takes exactly one attribute, the graph needs 2", ""),
    (tabular_graph(), {"function": "regression", "defaultOnNull": {"D": "1"}, "input": {"x": ["A", "B", "C"]}}, InvalidParameter, '"D" in the key "defaultOnNull" of the metadata is not an attribute', "The attributes are A, B, C."),
    (tabular_graph(), {"function": "regression", "defaultOnNull": {"A": "one"}, "input": {"x": ["A", "B", "C"]}}, InvalidParameter, 'invalid value for attribute "A": "one"', ""),
    (tabular_graph(TensorProto.INT8), {**SUM, "defaultOnNull": {"A": "300"}}, InvalidParameter, 'value 300 of attribute "A" is out of range for type int8', ""),
    # outputs
    (tabular_graph(), {**SUM, "regressionOutput": "z"}, InvalidParameter, '"z" in the JSON metadata is not a model output', "The model has the outputs y."),
    (tabular_graph(), {**CLASSES, "classificationProbOutput": "z"}, InvalidParameter, '"z" in the JSON metadata is not a model output', ""),
    (tabular_graph(output="z"), {**CLASSES}, InvalidModel, r'model output "z" has shape \[61\] for 61 rows, expected \[batch, classes\]', ""),
    (logit_graph(), SUM, InvalidModel, r'model output "logits" has shape \[61, 3\] for 61 rows, expected one value a row', ""),
    (logit_graph(kind=TensorProto.INT64), CLASSES, InvalidModel, r'"logits" has shape \[61, 3\] for 61 rows, expected one value a row', ""),
    (logit_graph(), {**CLASSES, "function": "clustering", "clusteringProbOutput": "none"}, InvalidParameter, '"none" in the JSON metadata is not a model output', ""),
    # labels
    (logit_graph(), {**CLASSES, "labels": ["a", "b"]}, InvalidParameter, 'the number of labels is 2, model output "logits" has 3 classes', "Give one label for each class"),
    (logit_graph(), {**CLASSES, "labels": ["a", "b", "c", "d"]}, InvalidParameter, "the number of labels is 4", ""),
    (classifier([4]), {**CLASSES, "classificationLabelOutput": "classes"}, InvalidModel, 'model output "classes" has 4 labels, "logits" has 3 classes', ""),
    (classifier([3], TensorProto.FLOAT), {**CLASSES, "classificationProbOutput": "logits", "classificationLabelOutput": "classes"}, InvalidModel, 'model output "classes" is not a tensor of strings or integers', ""),
    (classifier([3]), {**CLASSES, "classificationLabelOutput": "labels"}, InvalidParameter, '"labels" in the JSON metadata is not a model output', "The model has the outputs logits, classes."),
]  # fmt: skip


@pytest.mark.parametrize(("model", "metadata", "error", "message", "hint"), FAULTS, ids=range(len(FAULTS)))
def test_metadata_that_do_not_fit_the_graph(
    work: Path, model: onnx.ModelProto, metadata: Any, error: type[Any], message: str, hint: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        package_from_onnx(model.SerializeToString(), work, metadata)
    assert hint in str(caught.value.hint or "")


def test_two_outputs_need_a_name(work: Path) -> None:
    model = tabular_graph()
    model.graph.node.append(helper.make_node("Neg", ["y"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.DOUBLE, ["batch"]))
    with pytest.raises(
        InvalidParameter, match="model has 2 outputs and the metadata does not say which"
    ) as caught:
        package_from_onnx(model.SerializeToString(), work, SUM)
    assert caught.value.hint == 'Add the key "regressionOutput" with one of y, z.'
    package = package_from_onnx(model.SerializeToString(), work, {**SUM, "regressionOutput": "z"})
    assert package.spec.outputs == {"regression": "z"}


def test_labels_that_an_output_lists(work: Path) -> None:
    """Oracle's classificationLabelOutput: one entry a class."""
    package = package_from_onnx(
        classifier([3]).SerializeToString(), work, {**CLASSES, "classificationLabelOutput": "classes"}
    )
    assert (package.spec.labels, package.spec.outputs) == ((7, 8, 9), {"probability": "logits"})
    model = open_model(package.files, package.spec, threads=1)
    (output,) = model.run(model.prepare([{"A": 0, "B": 3, "C": 1}]))
    assert answers("prediction", [], package.spec, output) == ["8"]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("Labels", "labels"),
        ("normalizeprob", "normalizeProb"),
        ("classificationOutput", "classificationProbOutput"),
        ("default_on_null", "defaultOnNull"),
        ("inputs", "input"),
    ],
)
def test_misspelt_keys(key: str, meant: str) -> None:
    with pytest.raises(InvalidParameter, match=f'unrecognized metadata key "{key}"') as caught:
        parse_metadata({"function": "classification", key: "x"})
    assert caught.value.hint == f'Perhaps "{meant}" is meant; keys are case-sensitive.'


@pytest.mark.parametrize("key", ["description", "license", "author", "x", "modelVersion"])
def test_keys_that_say_something_else_are_kept(key: str) -> None:
    assert parse_metadata({"function": "regression", key: [1]}).raw[key] == [1]


def spec(function: str, *roles: str, labels: Any = None, result: str = "numeric") -> Spec:
    outputs = {role: role for role in roles}
    return Spec(
        function, (Input("x", "number", ("A",)),), outputs, (Attribute("A", "number"),), result, labels=labels
    )


SPECS = {
    "regression": spec("regression", "regression"),
    "classification": spec("classification", "probability"),
    "labels alone": spec("classification", "label"),
    "clustering": spec("clustering", "probability", "distance"),
    "distances": spec("clustering", "distance"),
    "embedding": spec("embedding", "embedding"),
}
FITTING = {
    "regression": {"prediction"},
    "classification": {"prediction", "prediction_probability", "prediction_set"},
    "labels alone": {"prediction"},
    "clustering": {"cluster_id", "cluster_probability", "cluster_set", "cluster_distance"},
    "distances": {"cluster_id", "cluster_distance"},
    "embedding": {"vector_embedding"},
}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_operators_fit_functions(operator: str, name: str) -> None:
    if operator in FITTING[name]:
        check_operator(operator, SPECS[name])
        return
    with pytest.raises(WrongObjectType) as caught:
        check_operator(operator, SPECS[name])
    assert operator.upper() in caught.value.message
    assert caught.value.hint


def test_operators_that_do_not_exist() -> None:
    with pytest.raises(InvalidParameter, match='unrecognized scoring operator "predict"'):
        check_operator("predict", SPECS["regression"])


@pytest.fixture
def three(work: Path) -> Model:
    """A classifier of three labelled classes that gives its input back."""
    metadata = {**CLASSES, "labels": ["low", "mid", "high"], "normalizeProb": "softmax"}
    package = package_from_onnx(logit_graph().SerializeToString(), work, metadata)
    probe(package)
    return open_model(package.files, package.spec, threads=1)


@pytest.mark.parametrize(
    ("operator", "arguments", "message"),
    [
        ("prediction", [1], "too many arguments: 1, the operator takes 0"),
        ("prediction_probability", ["none"], 'model has no class "none"'),
        ("prediction_probability", ["low", 1], "too many arguments"),
        ("prediction_set", [0], "number of best classes must be a positive integer, not 0"),
        ("prediction_set", [True], "number of best classes must be a positive integer"),
        ("prediction_set", [1.5], "number of best classes must be a positive integer, not 1.5"),
        ("prediction_set", [None, "x"], "cutoff must be a number, not x"),
    ],
)
def test_arguments_that_are_refused(three: Model, operator: str, arguments: list[Any], message: str) -> None:
    (output,) = three.run(three.prepare([{"A": 1, "B": 2, "C": 3}]))
    with pytest.raises(InvalidParameter, match=message) as caught:
        answers(operator, arguments, three.spec, output)
    if "class" in message and "none" in message:
        assert caught.value.hint == "The classes are low, mid, high."


def test_sets_are_cut_by_number_and_probability(three: Model) -> None:
    (output,) = three.run(three.prepare([{"A": 1, "B": 3, "C": 2}]))
    shares = np.exp([1.0, 3.0, 2.0]) / np.exp([1.0, 3.0, 2.0]).sum()
    for arguments, expected in (
        ([], ["mid", "high", "low"]),
        ([2], ["mid", "high"]),
        ([None, 0.2], ["mid", "high"]),
        ([1, 0.2], ["mid"]),
        ([9, None], ["mid", "high", "low"]),
        ([None, 2.0], []),
        ([None, float(shares[0])], ["mid", "high", "low"]),
    ):
        (text,) = answers("prediction_set", arguments, three.spec, output)
        found = [entry["prediction"] for entry in json.loads(text or "null")]
        assert found == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("abc", 'invalid value for attribute "B": "abc"'),
        ("", 'invalid value for attribute "B": ""'),
        ([1], r'invalid value for attribute "B": "\[1\]"'),
        ({"a": 1}, 'invalid value for attribute "B"'),
        ("1_0", 'invalid value for attribute "B"'),
        (1e300, 'value 1e\\+300 of attribute "B" is out of range for type float32'),
        (10**400, 'value 10{59}… of attribute "B" is out of range for type float64'),
        pytest.param(10**5000, 'attribute "B" is out of range', id="huge"),
        ("-1e400", 'value -1e400 of attribute "B" is out of range for type float64'),
    ],
)
def test_values_that_do_not_fit(three: Model, value: Any, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        three.prepare([{"A": 1, "B": 2, "C": 3}, {"A": 1, "B": value, "C": 3}])


def test_a_row_without_an_answer_has_no_set(three: Model) -> None:
    """NaN has no highest: PREDICTION is NULL, and so is the set."""
    (output,) = three.run(three.prepare([{"A": 1, "B": None, "C": 3}, {"A": 1, "B": 2, "C": 3}]))
    assert answers("prediction", [], three.spec, output) == [None, "high"]
    sets = answers("prediction_set", [1], three.spec, output)
    assert sets[0] is None
    assert json.loads(sets[1] or "")[0]["prediction"] == "high"


def test_values_that_other_attributes_may_have(three: Model) -> None:
    """What the model does not ask for is not looked at; infinity is a number by its name."""
    record = {"A": "Infinity", "B": " -inf ", "C": 3, "d": 10**5000, "e": [1], "f": "1e400"}
    (output,) = three.run(three.prepare([record]))
    assert answers("prediction", [], three.spec, output) == ["low"]


def test_whole_numbers_of_any_size_are_texts(work: Path) -> None:
    package = package_from_onnx(string_graph().SerializeToString(), work, {"function": "embedding"})
    model = open_model(package.files, package.spec, threads=1)
    (item,) = model.prepare([{"input": 10**5000}])
    assert item.tensors["input"].tolist() == ["1" + "0" * 5000]


def undecided() -> onnx.ModelProto:
    """Return a classifier of 7, 8 and 9 with an output that says 6 where the highest logit is below 0."""
    model = logit_graph(columns=3)
    kind = TensorProto.INT64
    lists = {"known": [7, 8, 9], "none": [6], "axis": [1]}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(values, np.int64), name) for name, values in lists.items()
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(-100, np.float32), "least"))
    model.graph.node.extend(
        [
            helper.make_node("ArgMax", ["x"], ["place"], axis=1, keepdims=0),
            helper.make_node("Gather", ["known", "place"], ["named"]),
            helper.make_node("ReduceMax", ["x"], ["most"], axes=[1], keepdims=0),
            helper.make_node("Less", ["most", "least"], ["unsure"]),
            helper.make_node("Where", ["unsure", "none", "named"], ["label"]),
        ]
    )
    model.graph.output.append(helper.make_tensor_value_info("label", kind, ["batch"]))
    return model


def test_a_label_that_is_no_class(work: Path) -> None:
    """PREDICTION gives it as the graph does; it has no probability."""
    package = package_from_onnx(undecided().SerializeToString(), work, CLASSES)
    assert package.spec.labels == (7, 8, 9)
    model = open_model(package.files, package.spec, threads=1)
    records = [{"A": 1, "B": 3, "C": 2}, {"A": -300, "B": -200, "C": -300}]
    (output,) = model.run(model.prepare(records))
    assert answers("prediction", [], package.spec, output) == ["8", "6"]
    assert answers("prediction_probability", ["7"], package.spec, output) == ["1.0", "-300.0"]
    with pytest.raises(InvalidModel, match='model gave the label "6", which is none of its classes'):
        answers("prediction_probability", [], package.spec, output)


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.UINT16])
def test_labels_of_small_integers_that_are_named(work: Path, kind: int) -> None:
    model = undecided()
    model.graph.output[-1].name = "small"
    model.graph.output[-1].type.tensor_type.elem_type = kind
    model.graph.node.append(helper.make_node("Cast", ["label"], ["small"], to=kind))
    package = package_from_onnx(
        model.SerializeToString(), work, {**CLASSES, "classificationLabelOutput": "small"}
    )
    opened = open_model(package.files, package.spec, threads=1)
    (output,) = opened.run(opened.prepare([{"A": 1, "B": 2, "C": 3}]))
    assert answers("prediction", [], package.spec, output) == ["9"]


def test_an_embedding_longer_than_a_vector_may_be(work: Path) -> None:
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1])
    made = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 16_001])
    row = numpy_helper.from_array(np.ones((1, 16_001), np.float32), "row")
    node = helper.make_node("MatMul", ["input", "row"], ["embedding"])
    graph = helper.make_graph([node], "long", [given], [made], [row])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    package = package_from_onnx(model.SerializeToString(), work)
    with pytest.raises(FeatureNotSupported, match="an embedding of 16001 dimensions is not supported"):
        probe(package)


def test_a_matrix_for_another_kind_of_model(work: Path) -> None:
    model = package_from_onnx(string_graph().SerializeToString(), work)
    with pytest.raises(
        InvalidParameter, match="a matrix of numbers needs a model whose attributes are all numbers"
    ):
        open_model(model.files, model.spec, threads=1).prepare_matrix(["DATA"], np.zeros((1, 1)))


@pytest.mark.parametrize(("user", "movie"), [(99, 0), (5, 0), (0, 5), (-2, 0), (0, -2), (-(2**63), 0)])
def test_an_index_beyond_the_table(work: Path, user: int, movie: int) -> None:
    package = package_from_onnx(onnx_model(random_factors(4, 4, 2)), work, METADATA)
    model = open_model(package.files, package.spec, threads=1)
    with pytest.raises(InvalidModel, match="model graph failed while running") as caught:
        model.run(model.prepare([{"USER_IDX": user, "MOVIE_IDX": movie}]))
    assert "out of data bounds" in str(caught.value.detail)


def endless() -> onnx.ModelProto:
    """Return a graph that counts to 10^9 when its input is above 1; at made-up rows of 0 and 1 it stops at once."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Add", ["value", "step"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "one"], ["condition"]),
        helper.make_node("Loop", ["turns", "condition", "floats"], ["y"], body=body),
    ]
    weights = [
        numpy_helper.from_array(np.array(10**9, np.int64), "turns"),
        numpy_helper.from_array(np.array(1, np.int64), "one"),
        numpy_helper.from_array(np.array(1, np.float32), "step"),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.INT64, ["batch"])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph(nodes, "endless", [given], [made], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_loop_of_a_billion_turns_can_be_stopped(work: Path) -> None:
    metadata = {"function": "regression", "input": {"x": ["X"]}}
    package = package_from_onnx(endless().SerializeToString(), work, metadata)
    model = open_model(package.files, package.spec, threads=1)
    run = model.begin()
    timer = threading.Timer(0.3, run.stop)
    started = time.monotonic()
    timer.start()
    with pytest.raises(RunStopped, match="the run of the model was stopped"):
        model.run(model.prepare([{"X": 5}]), run)
    timer.join()
    assert time.monotonic() - started < 10
    (output,) = model.run(model.prepare([{"X": 1}]))  # a later run is not concerned
    assert answers("prediction", [], package.spec, output) == ["1.0"]


def test_a_graph_that_makes_a_huge_tensor(work: Path) -> None:
    """The size is made at run time, where no shape tells it."""
    model = tabular_graph(TensorProto.INT64, ("batch",), output="sum")
    size = numpy_helper.from_array(np.array([2**45], np.int64), "size")
    model.graph.initializer.append(size)
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["sum"], ["whole"], to=TensorProto.INT64),
            helper.make_node("ReduceMin", ["whole"], ["least"], keepdims=1),
            helper.make_node("Add", ["least", "size"], ["much"]),
            helper.make_node("ConstantOfShape", ["much"], ["huge"]),
            helper.make_node("ReduceSum", ["huge"], ["y"]),
        ]
    )
    model.graph.output[0].name = "y"
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(InvalidModel, match="model graph failed while running"):
        package_from_onnx(model.SerializeToString(), work, {"function": "regression"})


def test_external_data_that_is_given_under_another_name(tmp_path: Path, work: Path) -> None:
    other = tmp_path / "weights"
    other.write_bytes(b"")
    for name in ("../weights", "/etc/passwd", "*/weights", "C:\\weights"):
        with pytest.raises(InvalidModel, match="external data lies outside the model folder"):
            package_from_onnx(tabular_graph().SerializeToString(), work, SUM, external_data={name: other})
    with pytest.raises(InvalidModel, match='model file "missing" is missing'):
        package_from_onnx(
            tabular_graph().SerializeToString(), work, SUM, external_data={"w": tmp_path / "missing"}
        )


def test_a_file_that_is_too_large(work: Path) -> None:
    content = tabular_graph().SerializeToString()
    with pytest.raises(LimitExceeded, match=f"the limit is {len(content) - 1} bytes"):
        package_from_onnx(content, work, SUM, max_bytes=len(content) - 1)


def test_pictures_have_no_default(work: Path) -> None:
    """A picture cannot be written as text in the metadata."""
    model = tabular_graph(TensorProto.UINT8, ("bytes",))
    model.graph.node[0].op_type, model.graph.node[0].domain = "DecodeImage", "com.microsoft.extensions"
    del model.graph.node[0].attribute[:]
    model.opset_import.append(helper.make_opsetid("com.microsoft.extensions", 1))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "other"
    metadata = {"function": "regression", "input": {"x": ["X"]}, "defaultOnNull": {"X": "\\x00"}}
    with pytest.raises((FeatureNotSupported, InvalidModel)):
        package_from_onnx(model.SerializeToString(), work, metadata)
