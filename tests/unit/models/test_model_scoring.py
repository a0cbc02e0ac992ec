"""Scores against scikit-learn, magika and bare ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn_models import COLUMNS, export, fit, load, records, rows
from small_models import logit_graph, pair_graph, random_factors, tabular_graph

from pythiadb.models.onnx_file import package_from_onnx
from pythiadb.models.operators import answers
from pythiadb.models.package import Package
from pythiadb.models.probe import probe
from pythiadb.models.session import Model, Scores, open_model
from pythiadb.recommend.export import METADATA, onnx_model

ROOT = Path(__file__).resolve().parents[3]
NAMES = np.array(["no", "maybe", 'so "so"\\'])
CLASSIFIERS = [
    LogisticRegression(),
    RandomForestClassifier(7, random_state=0),
    GradientBoostingClassifier(n_estimators=4, random_state=0),
    DecisionTreeClassifier(max_depth=3, random_state=0),
    GaussianNB(),
    MLPClassifier((5,), max_iter=40, random_state=0),
]


def opened(package: Package) -> Model:
    probe(package)
    return open_model(package.files, package.spec, threads=1)


def ask(model: Model, operator: str, asked: list[Any], *arguments: Any) -> list[str | None]:
    """Score records, in whatever items they come."""
    items = model.prepare(asked)
    assert sum(item.rows for item in items) == len(asked)
    return [
        text for output in model.run(items) for text in answers(operator, list(arguments), model.spec, output)
    ]


def numbers(texts: list[str | None]) -> list[float]:
    return [float(text) for text in texts if text is not None]


@pytest.mark.parametrize("zipmap", [True, False, "columns"])
@pytest.mark.parametrize("labels", ["text", "numeric"])
@pytest.mark.parametrize("classifier", CLASSIFIERS, ids=lambda c: type(c).__name__)
def test_classifiers(work: Path, classifier: Any, labels: str, zipmap: Any) -> None:
    x = rows()
    classes = NAMES if labels == "text" else np.array([30, 10, -2])
    fit(classifier, x, classes[np.arange(len(x)) % 3])
    model = opened(load(export(classifier, zipmap=zipmap), work, "classification"))
    assert model.spec.labels == tuple(classifier.classes_.tolist())
    assert model.spec.result == labels
    fresh = rows(1)
    assert ask(model, "prediction", records(fresh)) == list(map(str, classifier.predict(fresh)))
    expected = classifier.predict_proba(fresh)
    for place, label in enumerate(classifier.classes_.tolist()):
        found = numbers(ask(model, "prediction_probability", records(fresh), label))
        assert np.abs(found - expected[:, place]).max() < 1e-5
    best = numbers(ask(model, "prediction_probability", records(fresh)))
    assert np.abs(best - expected.max(axis=1)).max() < 1e-5


def test_a_binary_classifier(work: Path) -> None:
    x = rows()
    classifier = fit(LogisticRegression(), x, np.where(x[:, 0] > 0, "yes", "no"))
    model = opened(load(export(classifier), work, "classification"))
    assert model.spec.labels == ("no", "yes")
    assert ask(model, "prediction", records(rows(2))) == classifier.predict(rows(2)).tolist()


@pytest.mark.parametrize(
    "regressor",
    [LinearRegression(), RandomForestRegressor(7, random_state=0)],
    ids=lambda r: type(r).__name__,
)
def test_regressors(work: Path, regressor: Any) -> None:
    x = rows()
    fit(regressor, x, x[:, 0] * 3 - x[:, 1])
    model = opened(load(export(regressor), work, "regression"))
    found = numbers(ask(model, "prediction", records(rows(1))))
    assert np.allclose(found, regressor.predict(rows(1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("named", [{}, {"clusteringDistanceOutput": "scores"}])
def test_k_means(work: Path, named: dict[str, str]) -> None:
    clusters = fit(KMeans(3, n_init=1, random_state=0), rows())
    model = opened(load(export(clusters), work, "clustering", **named))
    fresh = rows(1)
    assert ask(model, "cluster_id", records(fresh)) == [str(n + 1) for n in clusters.predict(fresh)]
    expected = clusters.transform(fresh)
    for place in range(3):
        found = numbers(ask(model, "cluster_distance", records(fresh), place + 1))
        assert np.abs(found - expected[:, place]).max() < 1e-2  # it subtracts squares in float32
    nearest = numbers(ask(model, "cluster_distance", records(fresh)))
    assert np.abs(nearest - expected.min(axis=1)).max() < 1e-2


def test_a_pipeline_of_texts_and_numbers(work: Path) -> None:
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    rng = np.random.default_rng(0)
    table = {
        "city": rng.choice(["Lima", "Oslo", "Bonn"], 90),
        "age": rng.integers(18, 90, 90).astype(np.float32),
        "spent": rng.normal(size=90).astype(np.float32),
    }
    x = np.column_stack([table["city"], table["age"], table["spent"]]).astype(object)
    y = np.where((table["city"] == "Oslo") | (table["age"] > 60), "yes", "no")
    columns = ColumnTransformer([("c", OneHotEncoder(), [0]), ("n", StandardScaler(), [1, 2])])
    pipeline = fit(make_pipeline(columns, LogisticRegression()), x, y)
    kinds = [("city", StringTensorType([None, 1]))]
    kinds += [(name, FloatTensorType([None, 1])) for name in ("age", "spent")]
    package = package_from_onnx(export(pipeline, kinds), work, {"function": "classification"})
    assert [(a.name, a.type) for a in package.spec.attributes] == [
        ("city", "text"),
        ("age", "number"),
        ("spent", "number"),
    ]
    model = opened(package)
    asked = [
        {"CITY": city, "Age": float(age), "spent": float(spent), "ignored": [1]}
        for city, age, spent in zip(*table.values(), strict=True)
    ]
    assert ask(model, "prediction", asked) == pipeline.predict(x).tolist()
    assert np.allclose(
        numbers(ask(model, "prediction_probability", asked, "yes")),
        pipeline.predict_proba(x)[:, 1],
        atol=1e-5,
    )


def test_records_and_matrix_and_bare_runtime_agree(work: Path) -> None:
    classifier = fit(RandomForestClassifier(20, random_state=0), rows(), np.arange(len(rows())) % 3)
    source = export(classifier, zipmap=False)
    model = opened(load(source, work, "classification"))
    fresh = rows(3, 500)
    # trees are added up in an order that goes by threads and size of the batch: the last digits differ
    labels, bare = ort.InferenceSession(source).run(["label", "probabilities"], {"X": fresh})
    for order in (COLUMNS, COLUMNS[::-1]):
        matrix = fresh[:, [COLUMNS.index(name) for name in order]].astype(np.float64)
        (from_matrix,) = model.run(model.prepare_matrix(order, matrix))
        assert isinstance(from_matrix, Scores)
        assert np.abs(from_matrix["probability"] - bare).max() < 1e-6
        assert answers("prediction", [], model.spec, from_matrix) == list(map(str, labels))
        assert not from_matrix.missing.any()
    (from_records,) = model.run(model.prepare(records(fresh)))
    assert isinstance(from_records, Scores)
    assert np.abs(from_records["probability"] - bare).max() < 1e-6
    assert answers("prediction", [], model.spec, from_records) == list(map(str, labels))


def test_a_large_matrix_comes_in_slabs(work: Path) -> None:
    regressor = fit(LinearRegression(), rows(), rows()[:, 0])
    model = opened(load(export(regressor), work, "regression"))
    x = np.random.default_rng(0).normal(size=(20_000, 4))
    nulls = np.zeros(x.shape, dtype=np.bool_)
    items = model.prepare_matrix(COLUMNS, x, nulls)
    assert [item.rows for item in items] == [8192, 8192, 3616]
    assert all(len(item) <= 8192 for item in items)
    found = np.concatenate(
        [output["regression"] for output in model.run(items) if isinstance(output, Scores)]
    )
    assert np.abs(found - x[:, 0]).max() < 1e-4


def test_magika(work: Path) -> None:
    """Int32 [batch, 2048] from one attribute, and 214 labels."""
    magika = pytest.importorskip("magika", reason="magika, which carries its model, is not installed")
    folder = Path(magika.__file__).parent / "models" / "standard_v3_3"
    config = json.loads((folder / "config.min.json").read_text())
    labels = config["target_labels_space"]
    metadata = {"function": "classification", "labels": labels, "input": {"bytes": ["DATA"]}}
    package = package_from_onnx(folder / "model.onnx", work, metadata)
    assert [(a.name, a.type) for a in package.spec.attributes] == [("DATA", "vector")]
    model = opened(package)
    truth = magika.Magika()
    contents = [
        b"import os\nimport sys\n\nfor name in os.listdir('.'):\n    print(name, file=sys.stderr)\n" * 5,
        b'{"name": "pythia", "list": [1, 2, 3], "nested": {"a": null}}\n' * 30,
        b"<!DOCTYPE html><html><head><title>x</title></head><body><p>y</p></body></html>\n" * 20,
        b"SELECT a, b FROM t WHERE c = 1 ORDER BY d;\nINSERT INTO t VALUES (1, 2);\n" * 20,
    ]
    patterns = (
        "docs/**/*.md",
        "src/**/*.sql",
        "src/pythiadb/models/*.py",
        "*.toml",
        "tests/unit/models/*.py",
    )
    contents += [path.read_bytes() for pattern in patterns for path in sorted(ROOT.glob(pattern))[:8]]
    asked = [{"data": magika_features(content, config)} for content in contents]
    found = [truth.identify_bytes(content) for content in contents]
    assert ask(model, "prediction", asked) == [str(result.dl.label) for result in found]
    assert np.allclose(
        numbers(ask(model, "prediction_probability", asked)), [r.score for r in found], atol=1e-4
    )


def magika_features(content: bytes, config: dict[str, Any]) -> list[int]:
    """Return the bytes at both ends of a file, as magika documents its input."""
    block, pad = config["block_size"], config["padding_token"]
    head = list(content[:block].lstrip()[: config["beg_size"]])
    tail = list(content[-block:].rstrip()[-config["end_size"] :])
    return head + [pad] * (config["beg_size"] - len(head)) + [pad] * (config["end_size"] - len(tail)) + tail


def test_a_recommender_of_two_inputs(work: Path) -> None:
    rng = np.random.default_rng(0)
    factors = random_factors(50, 30, 8)
    model = opened(package_from_onnx(onnx_model(factors), work, METADATA))
    u, i = rng.integers(-1, 50, 40), rng.integers(-1, 30, 40)
    asked = [{"USER_IDX": int(a), "MOVIE_IDX": int(b)} for a, b in zip(u, i, strict=True)]
    expected = factors.predict(u, i)
    assert np.allclose(numbers(ask(model, "prediction", asked)), expected, atol=1e-5)
    (output,) = model.run(
        model.prepare_matrix(["movie_idx", "user_idx"], np.column_stack([i, u]).astype(float))
    )
    assert np.allclose(output["regression"] if isinstance(output, Scores) else 0, expected, atol=1e-5)


def test_a_reranker_of_two_strings(work: Path) -> None:
    metadata = {
        "function": "regression",
        "regressionOutput": "logits",
        "input": {"first_input": ["DATA1"], "second_input": ["DATA2"]},
    }
    model = opened(package_from_onnx(pair_graph().SerializeToString(), work, metadata))
    pairs = [
        ("a", "a"),
        ("a", "b"),
        ("1.50", 1.5),
        ("true", True),
        ("17", 17),
        (None, "a"),
        ("é" * 90_000, "é"),
    ]
    asked = [{"data1": first, "data2": second} for first, second in pairs]
    assert ask(model, "prediction", asked) == ["1.0", "0.0", "0.0", "1.0", "1.0", None, "0.0"]
    items = model.prepare(asked * 3)
    assert len(items) > 1  # long texts do not share a run


@pytest.mark.parametrize(
    "kind",
    [
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "FLOAT16",
        "FLOAT",
        "DOUBLE",
        "BOOL",
    ],
)
@pytest.mark.parametrize("shape", [("batch",), ("batch", 2), ("batch", 2, 2), (3, 2), (1, 2), (None, 1)])
def test_every_type_and_shape(work: Path, kind: str, shape: tuple[Any, ...]) -> None:
    source = tabular_graph(getattr(onnx.TensorProto, kind), shape).SerializeToString()
    width = int(np.prod(list(shape[1:]))) if len(shape) > 1 else 1
    names = [f"c{n}" for n in range(width)]
    model = opened(package_from_onnx(source, work, {"function": "regression", "input": {"x": names}}))
    values = np.arange(7 * width).reshape(7, width) % 2
    asked = [dict(zip(names, row, strict=True)) for row in values.tolist()]
    expected = [f"{sum(row):.1f}" for row in values.tolist()]
    assert ask(model, "prediction", asked) == expected
    texts = [{name: str(value) for name, value in row.items()} for row in asked]
    assert ask(model, "prediction", texts) == expected
    outputs = model.run(model.prepare_matrix(names, values.astype(float)))
    assert [t for o in outputs for t in answers("prediction", [], model.spec, o)] == expected


@pytest.mark.parametrize("kind", ["INT32", "FLOAT", "UINT8"])
def test_one_attribute_for_a_wide_tensor(work: Path, kind: str) -> None:
    source = tabular_graph(getattr(onnx.TensorProto, kind), ("batch", 2, 3)).SerializeToString()
    package = package_from_onnx(source, work, {"function": "regression", "input": {"x": ["DATA"]}})
    assert package.spec.attributes[0].type == ("blob" if kind == "UINT8" else "vector")
    model = opened(package)
    if kind == "UINT8":
        asked: list[Any] = ["\\x010203040506", bytes([9] * 6), None]
    else:
        asked = [[1, 2, 3, 4, 5, 6], "[9,9,9,9,9,9]", None]
    assert ask(model, "prediction", [{"data": value} for value in asked]) == ["21.0", "54.0", None]


def test_nulls(work: Path) -> None:
    floats = opened(
        package_from_onnx(
            tabular_graph().SerializeToString(),
            work,
            {"function": "regression", "input": {"x": ["A", "B", "C"]}, "defaultOnNull": {"b": "10"}},
        )
    )
    asked = [{"A": 1, "B": 2, "C": 3}, {"A": 1, "C": 3}, {"A": 1, "B": None, "C": None}, None, {}]
    expected = ["6.0", "14.0", None, None, None]
    assert ask(floats, "prediction", asked) == expected
    matrix = np.array([[1, 2, 3], [1, -1, 3], [1, -1, -1], [1, 1e300, np.inf]])
    nulls = np.array([[False] * 3, [False, True, False], [False, True, True], [False] * 3])
    (output,) = floats.run(floats.prepare_matrix(["a", "b", "c"], matrix, nulls))
    assert answers("prediction", [], floats.spec, output) == ["6.0", "14.0", None, None]
    (output,) = floats.run(floats.prepare_matrix(["a", "c"], matrix[:1, :2]))
    assert answers("prediction", [], floats.spec, output) == ["13.0"]
    for constant, answer in ((None, "13.0"), ("4", "7.0"), (0.5, "3.5")):
        (output,) = floats.run(floats.prepare_matrix(["a", "c"], matrix[:1, :2], None, {"B": constant}))
        assert answers("prediction", [], floats.spec, output) == [answer]


def test_nulls_of_integers(work: Path) -> None:
    source = tabular_graph(onnx.TensorProto.INT64, ("batch", 2)).SerializeToString()
    model = opened(package_from_onnx(source, work, {"function": "regression", "input": {"x": ["A", "B"]}}))
    asked = [{"A": 1, "B": None}, {"A": 1.5, "B": "2"}, None, {"A": 2**62, "B": 0}, {"A": -2.5, "B": "0.4"}]
    assert ask(model, "prediction", asked) == [None, "4.0", None, str(float(2**62)), "-3.0"]
    assert ask(model, "prediction", [{"A": None}] * 3) == [None, None, None]
    matrix = np.array([[1, np.nan], [1.5, 2], [2**62, 0], [-2.5, 0.4], [1, 1], [np.inf, 1]])
    nulls = np.zeros(matrix.shape, dtype=np.bool_)
    nulls[4, 0] = True
    (output,) = model.run(model.prepare_matrix(["A", "B"], matrix, nulls))
    assert answers("prediction", [], model.spec, output) == [None, "4.0", None, "-3.0", None, None]
    (output,) = model.run(model.prepare_matrix(["A", "B"], matrix[:1]))
    assert answers("prediction", [], model.spec, output) == [None]
    for constant, answer in ((None, None), ("1.5", "3.0"), (2**62, str(float(2**62 + 1)))):
        (output,) = model.run(model.prepare_matrix(["A"], matrix[:1, :1], None, {"b": constant}))
        assert answers("prediction", [], model.spec, output) == [answer]


def test_no_records_at_all(work: Path) -> None:
    metadata = {"function": "classification", "input": {"x": ["A", "B", "C"]}}
    model = opened(package_from_onnx(logit_graph().SerializeToString(), work, metadata))
    assert model.run(model.prepare([])) == []
    assert model.run(model.prepare_matrix(["A", "B", "C"], np.zeros((0, 3)))) == []
    (missing,) = model.run(model.prepare([None, None]))
    for operator in ("prediction", "prediction_probability", "prediction_set"):
        assert answers(operator, [], model.spec, missing) == [None, None]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.none() | st.lists(st.none() | st.floats(-50, 50, width=32), min_size=4, max_size=4), max_size=30
    )
)
def test_a_batch_gives_what_single_rows_give(values: list[Any]) -> None:
    asked = [None if row is None else dict(zip(COLUMNS, row, strict=True)) for row in values]
    for operator in ("prediction", "prediction_probability", "prediction_set"):
        alone = [ask(FOREST[0], operator, [record])[0] for record in asked]
        assert ask(FOREST[0], operator, asked) == alone


FOREST: list[Model] = []


@pytest.fixture(scope="module", autouse=True)
def _forest(tmp_path_factory: pytest.TempPathFactory) -> None:
    forest = fit(RandomForestClassifier(9, random_state=0), rows(), NAMES[np.arange(len(rows())) % 3])
    FOREST[:] = [opened(load(export(forest), tmp_path_factory.mktemp("forest"), "classification"))]
