"""Everything inside an ONNX model: its graph, the graphs inside nodes, and its own functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from onnx import TensorProto


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield every node: of the graph, of the bodies of If, Loop and Scan, and of the model's own functions."""
    for graph in graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Yield the graph and every graph inside a node, in functions too."""
    yield from _with_subgraphs(model.graph)
    for function in model.functions:
        yield from _subgraphs(function.node)


def _with_subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    yield from _subgraphs(graph.node)


def _subgraphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    # Protobuf refuses more than 100 levels, so the recursion is bounded.
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _with_subgraphs(attribute.g)
            for graph in attribute.graphs:
                yield from _with_subgraphs(graph)


def tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor that may name external data."""
    for graph in graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
