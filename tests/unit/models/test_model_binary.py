"""Two classes out of one number a row, labels that a graph computes, several targets, and NULL: never another answer than the model's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.cluster import KMeans
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier, RidgeClassifierCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.svm import LinearSVC
from sklearn_models import COLUMNS, export, fit, load, records, rows

from pythiadb.errors import FeatureNotSupported, InvalidModel, InvalidParameter, WrongObjectType
from pythiadb.models.onnx_file import package_from_onnx
from pythiadb.models.operators import answers, answers_literal, answers_vector
from pythiadb.models.package import Package, Spec
from pythiadb.models.probe import probe
from pythiadb.models.session import Model, Scores, open_model

CLASSES = {"function": "classification", "input": {"X": ["A", "B"]}}
Arrays = dict[str, np.ndarray[Any, Any]]


def opened(package: Package) -> Model:
    probe(package)
    assert Spec.from_json(json.dumps(package.spec.to_json())) == package.spec  # as the database keeps it
    return open_model(package.files, package.spec, threads=1)


def ask(model: Model, operator: str, asked: Any, *arguments: Any) -> list[str | None]:
    """Score records; and their numbers as a matrix, which must agree."""
    names = [a.name for a in model.spec.attributes]
    matrix = np.array([[record.get(name) for name in names] for record in asked], dtype=np.float64)
    found, other = (
        [
            text
            for output in model.run(items)
            for text in answers(operator, list(arguments), model.spec, output)
        ]
        for items in (
            model.prepare(asked),
            model.prepare_matrix(names, np.nan_to_num(matrix), np.isnan(matrix)),
        )
    )
    assert found == other
    return found


def floats(texts: list[str | None]) -> Any:
    return np.array([np.nan if text is None else float(text) for text in texts])


def bare(source: bytes, x: Any, *outputs: str) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # scikit-learn's exports tell a wrong number of columns
    session = ort.InferenceSession(source, options)
    return list(session.run(list(outputs), {"X": x.astype(np.float32)}))


def graph(steps: list[Any], outputs: list[Any], constants: Arrays, wide: int = 2, **more: Any) -> bytes:
    """Return a graph of a tensor X; steps are (operator, inputs, output, attributes), outputs (name, type, shape)."""
    nodes = [
        helper.make_node(operator, given, [made], **attributes) for operator, given, made, attributes in steps
    ]
    weights = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    made = [helper.make_tensor_value_info(*output) for output in outputs]
    given = [helper.make_tensor_value_info("X", more.get("kind", TensorProto.FLOAT), ["n", wide])]
    body = helper.make_graph(nodes, "g", given, made, weights)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def unit(shape: list[Any], *, sigmoid: bool = True, dtype: Any = np.float32) -> bytes:
    """Return what PyTorch makes of a layer of one unit: X · (1, -2), through a sigmoid or not."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    steps: list[Any] = [
        ("MatMul", ["X", "w"], "z", {}),
        ("Sigmoid" if sigmoid else "Identity", ["z"], "s", {}),
    ]
    constants = {"w": np.array([[1], [-2]], dtype), "one": np.array([1], np.int64)}
    steps.append(("Squeeze", ["s", "one"], "p", {}) if len(shape) == 1 else ("Identity", ["s"], "p", {}))
    return graph(steps, [("p", kind, shape)], constants, kind=kind)


def pairs(x: Any) -> list[dict[str, Any]]:
    return records(x, ("A", "B"))


X = np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)
CHANCES = 1 / (1 + np.exp(-(X[:, 0] - 2 * X[:, 1])))


# scores of two classes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [["no", "yes"], [10, -3]], ids=["text", "numeric"])
@pytest.mark.parametrize("classifier", [RidgeClassifier(), RidgeClassifierCV(), LinearSVC()], ids=str)
def test_scikit_learn_s_decision_functions(work: Path, classifier: Any, labels: list[Any]) -> None:
    """One column that is no probability: the class is the graph's own, and there is nothing else."""
    x = rows()
    fit(classifier, x, np.array(labels)[(x[:, 0] > np.median(x[:, 0])).astype(int)])
    source = export(classifier)
    model = opened(load(source, work, "classification"))
    assert model.spec.result == ("text" if isinstance(labels[0], str) else "numeric")
    fresh = rows(1)
    expected = classifier.predict(fresh)
    assert set(expected.tolist()) == set(labels)
    assert ask(model, "prediction", records(fresh)) == list(map(str, expected.tolist()))
    assert bare(source, fresh, "label")[0].tolist() == expected.tolist()
    for operator in ("prediction_probability", "prediction_set"):
        with pytest.raises(WrongObjectType) as caught:
            ask(model, operator, records(fresh))
        assert '"normalizeProb": "softmax"' in str(caught.value.hint)


def ridge(intercept: float = 0.0) -> tuple[Any, bytes]:
    x = rows()
    classifier = fit(RidgeClassifier(), x, np.where(x[:, 0] > np.median(x[:, 0]), "yes", "no"))
    if intercept:
        classifier.coef_ = classifier.coef_ * 1e-3
        classifier.intercept_ = np.array([intercept])
    return classifier, export(classifier)


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": ["no", "yes"]},
        {"labels": ["yes", "no"]},  # the order belongs to columns, and there are none
        {"classificationLabelOutput": "label"},
        {"classificationProbOutput": "probabilities"},
        {"labels": ["no", "yes"], "classificationLabelOutput": "label"},
    ],
    ids=str,
)
def test_what_the_metadata_say_of_a_score(work: Path, metadata: dict[str, Any]) -> None:
    classifier, source = ridge()
    model = opened(load(source, work, "classification", **metadata))
    assert ask(model, "prediction", records(rows(1))) == classifier.predict(rows(1)).tolist()


def test_other_labels_than_the_graph_s(work: Path) -> None:
    _, source = ridge()
    with pytest.raises(InvalidParameter, match='gives the label "(yes|no)", which is not in "labels"'):
        load(source, work, "classification", labels=["leaves", "stays"])


@pytest.mark.parametrize("intercept", [0.2, 0.7])
def test_scores_between_0_and_1_are_no_probabilities(work: Path, intercept: float) -> None:
    """All are "yes" for the model; read as probabilities the smaller ones would be "no"."""
    classifier, source = ridge(intercept)
    fresh = rows(1)
    scores = classifier.decision_function(fresh)
    assert 0 < scores.min() < scores.max() < 1
    model = opened(load(source, work, "classification", classificationProbOutput="probabilities"))
    assert ask(model, "prediction", records(fresh)) == ["yes"] * len(fresh)
    assert dict(model.spec.outputs) == {"label": "label", "score": "probabilities"}


@pytest.mark.parametrize("labels", [None, ["no", "yes"], ["stays", "leaves"]])
def test_softmax_makes_a_probability_of_a_score(work: Path, labels: Any) -> None:
    classifier, source = ridge()
    given = {} if labels is None else {"labels": labels}
    model = opened(load(source, work, "classification", normalizeProb="softmax", **given))
    names = labels or ["no", "yes"]
    assert model.spec.labels == tuple(names)
    fresh = rows(1)
    scores = classifier.decision_function(fresh)
    assert ask(model, "prediction", records(fresh)) == [names[int(score > 0)] for score in scores]
    found = floats(ask(model, "prediction_probability", records(fresh), names[1]))
    assert np.abs(found - 1 / (1 + np.exp(-scores))).max() < 1e-5


def test_null_has_no_class(work: Path) -> None:
    """The graph would call NaN "no"."""
    _, source = ridge()
    model = opened(load(source, work, "classification"))
    hole = rows(1)[:3].copy()
    hole[1, 2] = np.nan
    assert bare(source, hole, "label")[0][1] == "no"
    asked = records(rows(1)[:3])
    asked[1][COLUMNS[2]] = None
    found = ask(model, "prediction", asked)
    assert found[1] is None
    assert None not in (found[0], found[2])
    assert ask(model, "prediction", [{}, {}]) == [None, None]
    assert [
        a for o in model.run(model.prepare([None])) for a in answers("prediction", [], model.spec, o)
    ] == [None]


# probabilities of the second class ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [["no", "yes"], [0, 1], None], ids=str)
@pytest.mark.parametrize("shape", [["n", 1], ["n"]], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_a_sigmoid(work: Path, shape: list[Any], labels: Any, dtype: Any) -> None:
    given = {} if labels is None else {"labels": labels}
    model = opened(package_from_onnx(unit(shape, dtype=dtype), work, {**CLASSES, **given}))
    names = labels or [1, 2]
    assert ask(model, "prediction", pairs(X)) == [str(names[int(p > 0.5)]) for p in CHANCES]
    close = 5e-3 if dtype == np.float16 else 1e-6
    for label, expected in ((names[1], CHANCES), (names[0], 1 - CHANCES)):
        assert np.abs(floats(ask(model, "prediction_probability", pairs(X), label)) - expected).max() < close
    best = floats(ask(model, "prediction_probability", pairs(X)))
    assert np.abs(best - np.maximum(CHANCES, 1 - CHANCES)).max() < close
    sets = [json.loads(text or "") for text in ask(model, "prediction_set", pairs(X))]
    assert [entry[0]["prediction"] for entry in sets] == [names[int(p > 0.5)] for p in CHANCES]
    assert ask(model, "prediction", [{"A": 1, "B": None}]) == [None]
    assert ask(model, "prediction_probability", [{"A": 1, "B": None}], names[0]) == [None]


def clipped(shape: list[Any]) -> bytes:
    """Return a graph that brings X · (1, -2) between 0 and 1 without a sigmoid."""
    steps: list[Any] = [
        ("MatMul", ["X", "w"], "z", {}),
        ("Neg", ["z"], "m", {}),
        ("Exp", ["m"], "e", {}),
        ("Add", ["e", "one"], "d", {}),
        ("Reciprocal", ["d"], "p", {}),
    ]
    constants = {"w": np.array([[1], [-2]], np.float32), "one": np.array(1, np.float32)}
    return graph(steps, [("p", TensorProto.FLOAT, shape)], constants)


def test_a_probability_that_the_metadata_name(work: Path) -> None:
    metadata = {**CLASSES, "labels": ["no", "yes"]}
    with pytest.raises(InvalidModel, match="with two or more classes") as caught:
        package_from_onnx(clipped(["n", 1]), work, metadata)
    assert '"classificationProbOutput"' in str(caught.value.hint)
    model = opened(package_from_onnx(clipped(["n", 1]), work, {**metadata, "classificationProbOutput": "p"}))
    assert ask(model, "prediction", pairs(X)) == np.where(CHANCES > 0.5, "yes", "no").tolist()


def test_logits_of_one_column(work: Path) -> None:
    source = unit(["n", 1], sigmoid=False)
    named = {**CLASSES, "labels": ["no", "yes"], "classificationProbOutput": "p"}
    with pytest.raises(InvalidModel, match="with two or more classes"):
        package_from_onnx(source, work, named)
    model = opened(package_from_onnx(source, work, {**named, "normalizeProb": "softmax"}))
    assert ask(model, "prediction", pairs(X)) == np.where(CHANCES > 0.5, "yes", "no").tolist()
    assert np.abs(floats(ask(model, "prediction_probability", pairs(X), "yes")) - CHANCES).max() < 1e-6


@pytest.mark.parametrize("labels", [["only"], ["a", "b", "c"]])
def test_other_than_two_labels_for_one_column(work: Path, labels: list[str]) -> None:
    with pytest.raises(InvalidParameter, match=f'the number of labels is {len(labels)}, model output "p"'):
        package_from_onnx(unit(["n", 1]), work, {**CLASSES, "labels": labels})


def test_a_sigmoid_beside_labels(work: Path) -> None:
    """The answer stays the model's own, and the labels are found though the graph lists them nowhere."""
    steps: list[Any] = [
        ("MatMul", ["X", "w"], "z", {}),
        ("Sigmoid", ["z"], "p", {}),
        ("Greater", ["p", "limit"], "c", {}),
        ("Where", ["c", "yes", "no"], "label", {}),
    ]
    constants = {
        "w": np.array([[4], [-8]], np.float32),
        "limit": np.array(0.5, np.float32),
        "yes": np.array(["yes"], object),
        "no": np.array(["no"], object),
    }
    outputs = [("label", TensorProto.STRING, ["n", 1]), ("p", TensorProto.FLOAT, ["n", 1])]
    source = graph(steps, outputs, constants)
    model = opened(package_from_onnx(source, work, CLASSES))
    label, chance = bare(source, X, "label", "p")
    assert model.spec.labels == ("no", "yes")
    assert ask(model, "prediction", pairs(X)) == label.ravel().tolist()
    assert np.abs(floats(ask(model, "prediction_probability", pairs(X), "yes")) - chance.ravel()).max() < 1e-6


# graphs that classify nothing -----------------------------------------------------------------------------------------------


def test_a_regression_is_no_classifier_and_no_clustering(work: Path) -> None:
    source = export(fit(LinearRegression(), rows(), rows()[:, 0]))
    for function in ("classification", "clustering"):
        with pytest.raises(InvalidModel, match=r'model output "variable" has ') as caught:
            load(source, work, function)
        assert 'has the function "regression"' in str(caught.value.hint)


def test_a_single_cluster(work: Path) -> None:
    model = opened(load(export(fit(KMeans(1), rows())), work, "clustering"))
    assert ask(model, "cluster_id", records(rows(1)[:3])) == ["1"] * 3
    source = unit(["n", 1], sigmoid=False)
    metadata = {"function": "clustering", "input": {"X": ["A", "B"]}, "labels": [7]}
    assert ask(opened(package_from_onnx(source, work, metadata)), "cluster_id", pairs(X[:2])) == ["7"] * 2


# labels that stand nowhere in the graph -------------------------------------------------------------------------------------

SOFTMAX: list[Any] = [("MatMul", ["X", "w"], "z", {}), ("Softmax", ["z"], "probabilities", {})]
PLACE = ("ArgMax", ["probabilities"], "place", {"axis": 1, "keepdims": 0})
COLUMN: list[Any] = [
    ("Slice", ["probabilities", "zero", "one", "one"], "first", {}),
    ("Greater", ["first", "limit"], "c", {}),
    ("Where", ["c", "spam", "ham"], "label", {}),
]
WEIGHTS: Arrays = {
    "w": np.array([[1, -1], [-2, 1]], np.float32),
    "limit": np.array(0.5, np.float32),
    "zero": np.array([0], np.int64),
    "one": np.array([1], np.int64),
    "two": np.array(2, np.int64),
    "five": np.array(5, np.int64),
    "spam": np.array(["spam"], object),
    "ham": np.array(["ham"], object),
}
COMPUTED: dict[str, tuple[list[Any], Any, Any]] = {
    "ham and spam": (COLUMN, ("label", TensorProto.STRING, ["n", 1]), ("spam", "ham")),
    "5 and 7": (
        [PLACE, ("Mul", ["place", "two"], "m", {}), ("Add", ["m", "five"], "label", {})],
        ("label", TensorProto.INT64, ["n"]),
        (5, 7),
    ),
    "places": (
        [PLACE, ("Cast", ["place"], "label", {"to": TensorProto.INT32})],
        ("label", TensorProto.INT32, ["n"]),
        (0, 1),
    ),
}


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("name", COMPUTED)
def test_labels_that_the_graph_computes(work: Path, name: str, named: bool) -> None:
    steps, output, labels = COMPUTED[name]
    source = graph([*SOFTMAX, *steps], [output, ("probabilities", TensorProto.FLOAT, ["n", 2])], WEIGHTS)
    more = {"classificationLabelOutput": "label"} if named else {}
    model = opened(package_from_onnx(source, work, {**CLASSES, **more}))
    assert model.spec.labels == labels
    label, chances = bare(source, X, "label", "probabilities")
    assert len(set(label.ravel().tolist())) == 2
    assert ask(model, "prediction", pairs(X)) == list(map(str, label.ravel().tolist()))
    assert np.abs(floats(ask(model, "prediction_probability", pairs(X))) - chances.max(axis=1)).max() < 1e-6


def unlike(limit: float) -> bytes:
    """Return the model of ham and spam with another threshold than a half."""
    constants = {**WEIGHTS, "limit": np.array(limit, np.float32)}
    outputs = [("label", TensorProto.STRING, ["n", 1]), ("probabilities", TensorProto.FLOAT, ["n", 2])]
    return graph([*SOFTMAX, *COLUMN], outputs, constants)


@pytest.mark.parametrize("limit", [0.2, 2.0], ids=["another threshold", "one label only"])
def test_labels_that_cannot_be_found(work: Path, limit: float) -> None:
    """Numbered classes would contradict the model, so that its labels have to be given."""
    source = unlike(limit)
    with pytest.raises(InvalidParameter, match="does not tell which label belongs to which class") as caught:
        package_from_onnx(source, work, CLASSES)
    assert '"labels"' in str(caught.value.hint)
    names = ["spam", "ham"]
    given = {**CLASSES, "labels": names}
    label, chances = bare(source, X, "label", "probabilities")
    best = np.array(names)[chances.argmax(axis=1)]
    assert best.tolist() != label.ravel().tolist()
    assert ask(opened(package_from_onnx(source, work, given)), "prediction", pairs(X)) == best.tolist()
    named = {**given, "classificationLabelOutput": "label"}
    model = opened(package_from_onnx(source, work, named))
    assert ask(model, "prediction", pairs(X)) == label.ravel().tolist()
    places = [names.index(name) for name in label.ravel().tolist()]
    expected = np.take_along_axis(chances, np.array(places)[:, None], axis=1)[:, 0]
    assert np.abs(floats(ask(model, "prediction_probability", pairs(X))) - expected).max() < 1e-6
    with pytest.raises(InvalidParameter, match='which is not in "labels"'):
        package_from_onnx(source, work, {**named, "labels": ["a", "b"]})


# several targets ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [{}, {"classificationProbOutput": "probabilities"}, {"classificationLabelOutput": "label"}],
    ids=str,
)
def test_several_targets_are_refused(work: Path, metadata: dict[str, str]) -> None:
    x = rows()
    targets = np.column_stack([x[:, 0] > 0, x[:, 1] > 0]).astype(int)
    source = export(fit(MultiOutputClassifier(LogisticRegression()), x, targets))
    with pytest.raises((FeatureNotSupported, InvalidModel)) as caught:
        load(source, work, "classification", **metadata)
    assert "several targets" in str(caught.value)
    assert "xport one model for each" in str(caught.value.hint)


# NULL and NaN ---------------------------------------------------------------------------------------------------------------


def test_numbers_that_null_makes_nan_are_null(work: Path) -> None:
    """By records, by matrix and in each form of an answer: no call sorts such a row before all others."""
    x = rows()
    classifier = export(fit(LogisticRegression(), x, x[:, 0] > 0))
    asked = [*records(rows(1)[:2]), {COLUMNS[0]: 1.0}]
    for source, function, operators in (
        (classifier, "classification", ("prediction", "prediction_probability", "prediction_set")),
        (export(fit(KMeans(3, n_init=1), x)), "clustering", ("cluster_id", "cluster_distance")),
        (export(fit(LinearRegression(), x, x[:, 0])), "regression", ("prediction",)),
    ):
        model = opened(load(source, work, function))
        for operator in operators:
            found = ask(model, operator, asked)
            assert None not in found[:2]
            assert found[2] is None
            (output,) = model.run(model.prepare(asked))
            assert answers_literal(operator, [], model.spec, output).endswith(b",NULL}")
            assert answers_vector(operator, model.spec, output) is None


def test_infinity_is_an_answer() -> None:
    spec = Spec("regression", (), {"regression": "y"}, (), "double precision")
    values = np.array([np.inf, 1.5, np.nan, -np.inf, 7], np.float32)
    output = Scores({"regression": values}, np.array([False, False, False, False, True]))
    assert answers("prediction", [], spec, output) == ["Infinity", "1.5", None, "-Infinity", None]
