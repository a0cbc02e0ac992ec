"""What matrix factorization has learned as an ONNX graph of two inputs, for PREDICTION in SQL.

The graph has one row more than there are users, and than there are items: zeros, for the unknown one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from pythiadb.models.building import GraphBuilder
from pythiadb.recommend.factors import UNKNOWN, Factors

OPSET = 17  # older than the rest of this project's graphs: what ONNX Runtime 1.15, in Oracle 23ai, can read
IR_VERSION = 8
METADATA = {
    "function": "regression",
    "input": {"user_input": ["USER_IDX"], "movie_input": ["MOVIE_IDX"]},
}


def onnx_model(factors: Factors) -> bytes:
    """Return the graph that predicts as `factors` does: int64 `user_input` and `movie_input` to float32 `rating`, all [batch, 1].

    The inputs are positions. -1, or the position past the last, is an unknown user or item: bias 0, vector 0. Any other position
    outside stops the run with ONNX Runtime's message about an index out of bounds.
    """
    graph = GraphBuilder()
    user_bias, user_vectors = _side(graph, "user", factors.user_bias, factors.user_vectors)
    item_bias, item_vectors = _side(graph, "movie", factors.item_bias, factors.item_vectors)
    products = graph.node("Mul", user_vectors, item_vectors)
    total = graph.node("ReduceSum", products, graph.integers(1), keepdims=1)
    for term in (user_bias, item_bias, _number(graph, "mean", factors.mean)):
        total = graph.node("Add", total, term)
    bounds = _number(graph, "lowest", factors.lowest), _number(graph, "highest", factors.highest)
    graph.node("Clip", total, *bounds, output="rating")
    return bytes(_close(graph).SerializeToString())


def _side(graph: GraphBuilder, who: str, bias: NDArray[Any], vectors: NDArray[Any]) -> tuple[str, str]:
    """Look up the biases [batch, 1] and vectors [batch, d] of users or items; return the names of both."""
    place = _checked(graph, graph.node("Squeeze", f"{who}_input", graph.integers(1)), len(bias) + 1)
    unknown = np.zeros((1, vectors.shape[1]), np.float32)
    tables = {
        f"{who}_bias": np.append(bias, np.float32(0))[:, None],
        f"{who}_vectors": np.concatenate([vectors, unknown]),
    }
    found = [graph.node("Gather", graph.weight(name, table), place) for name, table in tables.items()]
    return found[0], found[1]


def _checked(graph: GraphBuilder, given: str, rows: int) -> str:
    """Return positions that Gather refuses where it would take them otherwise: those before -1.

    Gather counts negative positions from the end. For -1 that is the unknown row; others would be somebody else's.
    """
    other = graph.node("Less", given, graph.integers(UNKNOWN))
    return graph.node("Where", other, graph.node("Sub", given, graph.integers(rows)), given)


def _number(graph: GraphBuilder, name: str, value: float) -> str:
    return graph.weight(name, np.array(value, np.float32))


def _close(graph: GraphBuilder) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", 1]) for name in METADATA["input"]
    ]
    output = helper.make_tensor_value_info("rating", TensorProto.FLOAT, ["batch", 1])
    body = helper.make_graph(graph.nodes, "recommender", inputs, [output], graph.weights)
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(body, opset_imports=opsets, ir_version=IR_VERSION, producer_name="pythiadb")
