"""scikit-learn models for statements that score, each with the answers of scikit-learn and of bare ONNX Runtime."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

COLUMNS = ("AGE", "VISITS", "SPENT", "DAYS")
CITIES = ("Oslo", "Lima", "Kyōto", 'it\'s "here"')
LABELS = np.array(["bronze", "it's gold", 'sil"ver\\'])
ROWS = 48


def features(seed: int = 5, count: int = ROWS) -> NDArray[np.float32]:
    """Rows of four numbers that float32 holds exactly: two whole ones, two with halves and eighths."""
    rng = np.random.default_rng(seed)
    columns = [
        rng.integers(18, 80, count),
        rng.integers(0, 30, count),
        rng.integers(0, 4000, count) / 2,
        rng.integers(-8000, 8000, count) / 8,
    ]
    return np.column_stack(columns).astype(np.float32)


X = features()
GROUPS = (X[:, 0] / 27 + X[:, 1] / 15).astype(int).clip(0, 2)


@dataclass(frozen=True)
class Made:
    """An ONNX file with its metadata, and the scikit-learn model that it was made of."""

    graph: bytes
    metadata: dict[str, Any]
    model: Any

    @property
    def metadata_text(self) -> str:
        """The metadata as JSON text."""
        return json.dumps(self.metadata)

    @cached_property
    def _session(self) -> Any:
        return ort.InferenceSession(self.graph, providers=["CPUExecutionProvider"])

    def bare(self, x: NDArray[Any], output: str) -> NDArray[Any]:
        """One output of bare ONNX Runtime for rows of numbers."""
        tensor = self._session.get_inputs()[0]
        kind = np.float64 if "double" in tensor.type else np.float32
        return np.asarray(self._session.run([output], {tensor.name: x.astype(kind)})[0])


def _made(model: Any, target: Any, metadata: dict[str, Any], kinds: Any = None, **options: Any) -> Made:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, target)
        types = [("X", kinds)] if kinds else [("X", FloatTensorType([None, len(COLUMNS)]))]
        graph = to_onnx(model, initial_types=types, target_opset=17, options=options or None)
    return Made(graph.SerializeToString(), {"input": {"X": list(COLUMNS)}, **metadata}, model)


def _classifier(model: Any, target: Any) -> Made:
    metadata = {
        "function": "classification",
        "classificationProbOutput": "probabilities",
        "labels": np.unique(target).tolist(),
    }
    return _made(model, target, metadata, zipmap=False)


def _towns() -> Made:
    """A pipeline that takes a string and a number in two tensors."""
    rng = np.random.default_rng(1)
    rows = [[CITIES[n % len(CITIES)], float(rng.integers(18, 80))] for n in range(60)]
    table = np.array(rows, dtype=object)
    target = [
        f"{'north' if CITIES.index(city) % 2 else 'south'} {'old' if age > 45 else 'young'}"
        for city, age in rows
    ]
    model = make_pipeline(
        ColumnTransformer(
            [("city", OneHotEncoder(handle_unknown="ignore"), [0]), ("age", "passthrough", [1])]
        ),
        RandomForestClassifier(5, random_state=0),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(table, target)
        types = [("CITY", StringTensorType([None, 1])), ("AGE", FloatTensorType([None, 1]))]
        graph = to_onnx(model, initial_types=types, target_opset=17, options={id(model): {"zipmap": False}})
    metadata = {
        "function": "classification",
        "classificationProbOutput": "probabilities",
        "labels": model.classes_.tolist(),
    }
    return Made(graph.SerializeToString(), metadata, model)


def _sevens(kind: int = TensorProto.INT64) -> Made:
    """The remainder of a whole number by seven; never negative."""
    nodes = [
        helper.make_node("Cast", ["N"], ["wide"], to=TensorProto.INT64),
        helper.make_node("Mod", ["wide", "seven"], ["rest"]),
        helper.make_node("Cast", ["rest"], ["remainder"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "sevens",
        [helper.make_tensor_value_info("N", kind, ["batch", 1])],
        [helper.make_tensor_value_info("remainder", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(np.array([7], np.int64), "seven")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return Made(model.SerializeToString(), {"function": "regression", "regressionOutput": "remainder"}, None)


def make_all() -> dict[str, Made]:
    """The models by name."""
    clustering = {"function": "clustering"}
    regression = {"function": "regression", "regressionOutput": "variable"}
    spent = X @ np.array([3, -1, 0.5, 0.25])
    return {
        "forest": _classifier(RandomForestClassifier(12, max_depth=6, random_state=0), LABELS[GROUPS]),
        "numbers": _classifier(LogisticRegression(max_iter=10_000), np.array([10, 20, 30])[GROUPS]),
        "spend": _made(RandomForestRegressor(10, random_state=0), spent, regression),
        "line": _made(LinearRegression(), spent, regression, DoubleTensorType([None, len(COLUMNS)])),
        "segments": _made(
            KMeans(4, n_init=2, random_state=0), None, {**clustering, "clusteringDistanceOutput": "scores"}
        ),
        "mixture": _made(
            GaussianMixture(3, random_state=0), None, {**clustering, "clusteringProbOutput": "probabilities"}
        ),
        "towns": _towns(),
        "sevens": _sevens(),
        "bytes": _sevens(TensorProto.UINT8),
    }
