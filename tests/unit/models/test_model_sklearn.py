"""scikit-learn on its own data sets, through skl2onnx: labels identical, numbers close, clusters and embeddings too."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from skl2onnx.common.data_types import StringTensorType
from sklearn import datasets
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import ElasticNet, LogisticRegression, PoissonRegressor, SGDClassifier
from sklearn.mixture import GaussianMixture
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn_models import export, fit

from pythiadb.errors import InvalidModel
from pythiadb.models.onnx_file import package_from_onnx
from pythiadb.models.operators import answers
from pythiadb.models.package import Package
from pythiadb.models.probe import probe
from pythiadb.models.session import Model, Scores, open_model

LOADERS = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
    "diabetes": datasets.load_diabetes,
}


def data(name: str) -> tuple[Any, Any, list[str]]:
    """Return x, y and the names of the classes."""
    loaded = LOADERS[name]()
    names = [str(label) for label in getattr(loaded, "target_names", [])]
    return loaded.data.astype(np.float32), loaded.target, names


def opened(source: bytes, work: Path, function: str, x: Any, **metadata: Any) -> Model:
    names = [f"F{number}" for number in range(x.shape[1])]
    given = {"function": function, "input": {"X": names}, **metadata}
    package: Package = package_from_onnx(source, work, given)
    probe(package)
    return open_model(package.files, package.spec, threads=2)


def ask(model: Model, operator: str, x: Any, *arguments: Any) -> list[str | None]:
    """Score rows as records and as a matrix, which must agree to the last digits."""
    names = [f"F{number}" for number in range(x.shape[1])]
    records = [dict(zip(names, row, strict=True)) for row in x.tolist()]
    spec = model.spec
    found, other = (
        [text for output in model.run(items) for text in answers(operator, list(arguments), spec, output)]
        for items in (model.prepare(records), model.prepare_matrix(names, x.astype(np.float64)))
    )
    if operator in ("prediction", "cluster_id") and spec.function != "regression":
        assert found == other
    return found


def floats(texts: list[str | None]) -> Any:
    return np.array([float(text) if text is not None else np.nan for text in texts])


CLASSIFIERS = [
    ("iris", LogisticRegression(max_iter=500)),
    ("wine", RandomForestClassifier(20, random_state=0)),
    ("digits", RandomForestClassifier(20, random_state=0)),
    ("cancer", ExtraTreesClassifier(20, random_state=0)),
    ("cancer", GradientBoostingClassifier(n_estimators=10, random_state=0)),
    ("wine", AdaBoostClassifier(n_estimators=5, random_state=0)),
    ("iris", KNeighborsClassifier(3)),
    ("iris", make_pipeline(StandardScaler(), SVC(probability=True, random_state=0))),
    ("wine", LinearDiscriminantAnalysis()),
    ("wine", make_pipeline(MinMaxScaler(), SGDClassifier(loss="log_loss", random_state=0))),
    ("wine", make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression()))),
    ("digits", make_pipeline(MinMaxScaler(), LogisticRegression(max_iter=300))),
]


@pytest.mark.filterwarnings("ignore")  # of scikit-learn, about its own settings
@pytest.mark.parametrize("texts", [True, False], ids=["text", "number"])
@pytest.mark.parametrize(
    ("name", "classifier"), CLASSIFIERS, ids=lambda v: v if isinstance(v, str) else str(v)[:20]
)
def test_classifiers(work: Path, name: str, classifier: Any, texts: bool) -> None:
    x, y, names = data(name)
    labels = np.array(names)[y] if texts else y
    fit(classifier, x[::2], labels[::2])
    model = opened(export(classifier, x[:1]), work, "classification", x)
    assert model.spec.labels == tuple(classifier.classes_.tolist())
    fresh = x[1::2]
    found = ask(model, "prediction", fresh)
    session = ort.InferenceSession(export(classifier, x[:1], zipmap=False))
    (given,) = session.run([session.get_outputs()[0].name], {"X": fresh})
    assert found == list(map(str, given.tolist()))
    # float32 decides ties in another way than float64
    same = np.array(found) == classifier.predict(fresh).astype(str)
    assert same.mean() > 0.98
    chances = classifier.predict_proba(fresh)
    places = [classifier.classes_.tolist().index(label) for label in given.tolist()]
    of_label = np.take_along_axis(chances, np.array(places)[:, None], axis=1)[:, 0]
    assert np.abs(floats(ask(model, "prediction_probability", fresh)) - of_label)[same].max() < 1e-4
    first = floats(ask(model, "prediction_probability", fresh, classifier.classes_[0].item()))
    assert np.abs(first - chances[:, 0])[same].max() < 1e-4
    sets = [json.loads(text or "null") for text in ask(model, "prediction_set", fresh, 2, None)]
    assert {len(entry) for entry in sets} == {min(2, len(classifier.classes_))}
    for entry, row in zip(np.array(sets, dtype=object)[same], chances[same], strict=True):
        assert abs(entry[0]["probability"] - row.max()) < 1e-4


def test_support_vectors_vote_on_their_own(work: Path) -> None:
    """Their answer is not always the most probable class; PREDICTION gives the answer, as scikit-learn does."""
    x, y, names = data("iris")
    labels = np.array(names)[y]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier = fit(SVC(probability=True, random_state=0), x[::2], labels[::2])
    model = opened(export(classifier, x[:1]), work, "classification", x)
    fresh = x[1::2]
    predicted, likely = (
        classifier.predict(fresh),
        classifier.classes_[classifier.predict_proba(fresh).argmax(axis=1)],
    )
    assert (predicted != likely).any()
    assert ask(model, "prediction", fresh) == predicted.tolist()
    best = [json.loads(text or "null")[0]["prediction"] for text in ask(model, "prediction_set", fresh, 1)]
    assert best == likely.tolist()


def test_a_classifier_without_probabilities_ranks_its_scores(work: Path) -> None:
    x, y, _ = data("wine")
    x = StandardScaler().fit_transform(x).astype(np.float32)
    classifier = fit(LinearSVC(random_state=0), x, y)
    model = opened(export(classifier, x[:1]), work, "classification", x)
    assert ask(model, "prediction", x) == list(map(str, classifier.predict(x)))


REGRESSORS = [
    ElasticNet(alpha=0.1),
    PoissonRegressor(alpha=0.1, max_iter=500),
    GradientBoostingRegressor(n_estimators=10, random_state=0),
    KNeighborsRegressor(3),
    SVR(),
    MLPRegressor(hidden_layer_sizes=(5,), max_iter=30, random_state=0),
    GaussianProcessRegressor(alpha=1.0, random_state=0),
]


@pytest.mark.parametrize("regressor", REGRESSORS, ids=lambda r: type(r).__name__)
def test_regressors(work: Path, regressor: Any) -> None:
    x, y, _ = data("diabetes")
    fit(regressor, x[::2], y[::2])
    model = opened(export(regressor, x[:1]), work, "regression", x)
    found = floats(ask(model, "prediction", x[1::2]))
    assert np.allclose(found, regressor.predict(x[1::2]), rtol=1e-3, atol=1e-2)


def test_several_targets_are_refused(work: Path) -> None:
    x, y, _ = data("diabetes")
    regressor = fit(ElasticNet(), x, np.column_stack([y, y]))
    with pytest.raises(InvalidModel, match=r"has shape \[61, 2\] for 61 rows, expected one value a row"):
        opened(export(regressor, x[:1]), work, "regression", x)


@pytest.mark.parametrize(
    "clusters", [KMeans(3, n_init=2, random_state=0), MiniBatchKMeans(4, random_state=0)], ids=str
)
def test_clusters(work: Path, clusters: Any) -> None:
    x, _, _ = data("iris")
    fit(clusters, x[::2])
    model = opened(export(clusters, x[:1]), work, "clustering", x)
    fresh = x[1::2]
    assert ask(model, "cluster_id", fresh) == [str(number + 1) for number in clusters.predict(fresh)]
    distances = clusters.transform(fresh)
    for place in range(distances.shape[1]):
        found = floats(ask(model, "cluster_distance", fresh, place + 1))
        assert np.abs(found - distances[:, place]).max() < 1e-2
    assert np.abs(floats(ask(model, "cluster_distance", fresh)) - distances.min(axis=1)).max() < 1e-2


def test_clusters_with_probabilities(work: Path) -> None:
    x, _, _ = data("iris")
    mixture = fit(GaussianMixture(3, random_state=0), x)
    metadata = {"clusteringProbOutput": "probabilities", "labels": [10, 20, 30]}
    model = opened(export(mixture, x[:1]), work, "clustering", x, **metadata)
    chances = mixture.predict_proba(x)
    sure = np.sort(chances, axis=1)[:, -1] > 0.5 + 1e-3
    found = ask(model, "cluster_id", x)
    expected = [str(10 * (number + 1)) for number in mixture.predict(x)]
    assert [a for a, good in zip(found, sure, strict=True) if good] == [
        b for b, good in zip(expected, sure, strict=True) if good
    ]
    assert np.abs(floats(ask(model, "cluster_probability", x, 20)) - chances[:, 1]).max() < 1e-2
    first = json.loads(ask(model, "cluster_set", x[:1])[0] or "null")
    assert [entry["cluster_id"] for entry in first] == [10 * (n + 1) for n in np.argsort(-chances[0])]


def test_a_projection_is_an_embedding(work: Path) -> None:
    """PCA: 64 numbers as one attribute in, a vector out."""
    x, _, _ = data("digits")
    projection = fit(PCA(5, random_state=0), x)
    metadata = {"function": "embedding", "input": {"X": ["PIXELS"]}}
    package = package_from_onnx(export(projection, x[:1]), work, metadata)
    probe(package)
    assert (package.spec.dimensions, package.spec.attributes[0].type) == (5, "vector")
    model = open_model(package.files, package.spec, threads=1)
    outputs = model.run(model.prepare([{"PIXELS": row} for row in x[:50].tolist()]))
    found = np.concatenate([output for output in outputs if not isinstance(output, Scores)])
    assert np.allclose(found, projection.transform(x[:50]), atol=1e-3)


def test_null_is_what_an_imputer_fills(work: Path) -> None:
    x, y, _ = data("iris")
    holes = x.copy()
    holes[::3, 1] = np.nan
    pipeline = fit(make_pipeline(SimpleImputer(), LogisticRegression(max_iter=500)), holes, y)
    names = ["A", "B", "C", "D"]
    package = package_from_onnx(
        export(pipeline, x[:1]), work, {"function": "classification", "input": {"X": names}}
    )
    model = open_model(package.files, package.spec, threads=1)
    records = [
        {n: None if np.isnan(v) else v for n, v in zip(names, row, strict=True)} for row in holes.tolist()
    ]
    found = [
        text
        for output in model.run(model.prepare(records))
        for text in answers("prediction", [], package.spec, output)
    ]
    assert found == list(map(str, pipeline.predict(holes)))
    outputs = model.run(model.prepare_matrix(names, np.nan_to_num(holes).astype(float), np.isnan(holes)))
    assert [t for output in outputs for t in answers("prediction", [], package.spec, output)] == found


@pytest.mark.parametrize("encoder", [OneHotEncoder(), OrdinalEncoder()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("kind", ["columns", "one tensor", "numbers", "one attribute"])
def test_encoders_that_refuse_unknown_categories(work: Path, encoder: Any, kind: str) -> None:
    """Trial runs with made-up values would fail; the values that the encoders know stand in the graph."""
    rng = np.random.default_rng(0)
    if kind in ("numbers", "one attribute"):
        x = rng.integers(5, 9, size=(90, 2))
        sample: Any = x[:1]
        names = {"X": ["FIRST", "SECOND"]} if kind == "numbers" else {"X": ["BOTH"]}
    else:
        x = np.column_stack([rng.choice(["Lima", "Oslo"], 90), rng.choice(["a", "b", "c"], 90)]).astype(
            object
        )
        wide = kind == "one tensor"
        sample = (
            [("X", StringTensorType([None, 2]))]
            if wide
            else [(name, StringTensorType([None, 1])) for name in ("first", "second")]
        )
        names = {"X": ["FIRST", "SECOND"]} if wide else {"first": ["FIRST"], "second": ["SECOND"]}
    columns = ColumnTransformer([("both", encoder, [0, 1])])
    pipeline = fit(make_pipeline(columns, DecisionTreeClassifier(random_state=0)), x, np.arange(90) % 3)
    package = package_from_onnx(
        export(pipeline, sample), work, {"function": "classification", "input": names}
    )
    probe(package)
    model = open_model(package.files, package.spec, threads=1)
    if kind == "one attribute":
        records = [{"BOTH": row} for row in x.tolist()]
    else:
        records = [dict(zip(("FIRST", "SECOND"), row, strict=True)) for row in x.tolist()]
    found = [
        text
        for output in model.run(model.prepare(records))
        for text in answers("prediction", [], package.spec, output)
    ]
    assert found == list(map(str, pipeline.predict(x)))
