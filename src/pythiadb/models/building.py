"""A small helper to write ONNX graphs node by node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 20  # the first with Gelu; LayerNormalization came with 17
IR_VERSION = 10
MICROSOFT = "com.microsoft"  # ONNX Runtime's own operators, part of every build of it

# Weights above this size go into a file of their own, which all processes map: they then share one copy.
INLINE_LIMIT = 1 << 20  # bytes


class GraphBuilder:
    """Nodes and weights in the order in which they were added; every node has one output, named after its operator."""

    def __init__(self, prefix: str = "", opset: int = OPSET) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self._prefix = prefix
        self._names: set[str] = set()

    def weight(self, name: str, values: NDArray[Any]) -> str:
        """Add a constant tensor once and return its name; a second call with the same name only names it."""
        name = self._prefix + name
        if name not in self._names:
            self._names.add(name)
            self.weights.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def integers(self, *values: int) -> str:
        """Return the name of a constant int64 list."""
        return self.weight("ints_" + "_".join(map(str, values)), np.array(values, dtype=np.int64))

    def integer(self, value: int) -> str:
        """Return the name of a constant int64 without dimensions."""
        return self.weight(f"int_{value}", np.array(value, dtype=np.int64))

    def node(
        self, operator: str, *inputs: str, output: str | None = None, domain: str = "", **attributes: Any
    ) -> str:
        """Add a node and return the name of its output; an empty input name leaves an optional input out."""
        name = f"{self._prefix}{operator}_{len(self.nodes)}"
        output = output or name
        made = helper.make_node(operator, list(inputs), [output], name=name, domain=domain, **attributes)
        self.nodes.append(made)
        return output


def token_model(
    graph: GraphBuilder, name: str, inputs: tuple[str, ...], output: str, dimensions: int
) -> onnx.ModelProto:
    """Close a graph that takes int64 [batch, tokens] tensors and gives one float32 [batch, dimensions] tensor."""
    taken = [helper.make_tensor_value_info(item, TensorProto.INT64, ["batch", "tokens"]) for item in inputs]
    return close_model(graph, name, taken, output, dimensions)


def close_model(
    graph: GraphBuilder, name: str, taken: list[onnx.ValueInfoProto], output: str, dimensions: int
) -> onnx.ModelProto:
    """Close a graph that gives one float32 [batch, dimensions] tensor."""
    given = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", dimensions])]
    body = helper.make_graph(graph.nodes, name, taken, given, graph.weights)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(body, opset_imports=opsets, ir_version=IR_VERSION, producer_name="pythiadb")


def save_model(model: onnx.ModelProto, path: Path, *, inline_limit: int = INLINE_LIMIT) -> dict[str, Path]:
    """Write a model and return its files by stored name: one file, or two when the weights pass `inline_limit` bytes.

    A protobuf message cannot pass 2 GiB, so `inline_limit` above that fails for large models.
    """
    if weight_bytes(model) <= inline_limit:
        onnx.save_model(model, path)
        return {path.name: path}
    data = path.with_name(path.name + ".data")
    data.unlink(missing_ok=True)  # onnx appends to a file that is there
    onnx.save_model(model, path, save_as_external_data=True, location=data.name, size_threshold=1024)
    return {path.name: path, data.name: data}


def weight_bytes(model: onnx.ModelProto) -> int:
    """Return the bytes of the weights that can move into a file of their own."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)
