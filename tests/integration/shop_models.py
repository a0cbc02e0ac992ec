"""Small models of every function for tests that score, each with what scikit-learn or numpy says of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression

from pythiadb.recommend.export import onnx_model
from tests.unit.models.small_models import random_factors

_RANDOM = np.random.default_rng(7)
FEATURES = np.column_stack([_RANDOM.integers(18, 80, 40), _RANDOM.integers(0, 30, 40)]).astype(np.float32)
_INPUT = {"X": ["AGE", "VISITS"]}
WORDS = ("battery", "screen", "keyboard", "noise", "heat", "loud", "fan")


@dataclass(frozen=True)
class Made:
    """An ONNX file and its metadata."""

    graph: bytes
    metadata: dict[str, Any]

    @property
    def metadata_text(self) -> str:
        """The metadata as JSON text."""
        return json.dumps(self.metadata)


CHURN = LogisticRegression().fit(FEATURES, np.where(FEATURES[:, 1] + FEATURES[:, 0] / 9 < 18, "yes", "no"))
SEGMENTS = KMeans(3, n_init=3, random_state=0).fit(FEATURES)


def churn() -> Made:
    """A classifier with the labels no and yes."""
    graph = to_onnx(CHURN, FEATURES[:1], options={"zipmap": False}).SerializeToString()
    labels = CHURN.classes_.tolist()
    metadata = {
        "function": "classification",
        "classificationProbOutput": "probabilities",
        "labels": labels,
        "input": _INPUT,
    }
    return Made(graph, metadata)


def segments() -> Made:
    """Three clusters with their distances."""
    graph = to_onnx(SEGMENTS, FEATURES[:1]).SerializeToString()
    return Made(graph, {"function": "clustering", "clusteringDistanceOutput": "scores", "input": _INPUT})


def reranker() -> Made:
    """The number of words that two texts have in common, out of a short vocabulary."""
    nodes = []
    for name in ("first", "second"):
        nodes += [
            helper.make_node("Reshape", [f"{name}_input", "all"], [f"{name}_flat"]),
            helper.make_node("StringSplit", [f"{name}_flat"], [f"{name}_words", f"{name}_count"]),
            helper.make_node(
                "TfIdfVectorizer", [f"{name}_words"], [f"{name}_vector"], mode="TF", min_gram_length=1, max_gram_length=1,
                max_skip_count=0, ngram_counts=[0], ngram_indexes=list(range(len(WORDS))), pool_strings=WORDS,
            ),
        ]  # fmt: skip
    nodes += [
        helper.make_node("Mul", ["first_vector", "second_vector"], ["both"]),
        helper.make_node("ReduceSum", ["both", "last"], ["logits"], keepdims=1),
    ]
    inputs = [
        helper.make_tensor_value_info(f"{n}_input", TensorProto.STRING, ["batch", 1])
        for n in ("first", "second")
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])
    weights = [
        numpy_helper.from_array(np.array([-1], np.int64), "all"),
        numpy_helper.from_array(np.array([1], np.int64), "last"),
    ]
    graph = helper.make_graph(nodes, "reranker", inputs, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    names = {"first_input": ["DATA1"], "second_input": ["DATA2"]}
    return Made(
        model.SerializeToString(), {"function": "regression", "regressionOutput": "logits", "input": names}
    )


TASTE = random_factors(9, 11, 4, seed=7)


def recommender() -> bytes:
    """The graph of TASTE."""
    return onnx_model(TASTE)


def ratings(users: list[int], movies: list[int]) -> NDArray[np.float32]:
    """What the recommender says, by numpy."""
    return TASTE.predict(np.array(users), np.array(movies))
