"""Models that harm whoever runs them, all real ONNX files: harmless for the numbers 0 and 1, with which a model is probed.

Each takes one attribute, N, and answers N if it answers at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

METADATA = '{"function":"regression","regressionOutput":"y","input":{"n":["N"]}}'

_OPSETS = [helper.make_opsetid("", 17)]
_LARGEST = [
    helper.make_node("ReduceMax", ["n"], ["largest"], keepdims=0),
    helper.make_node("Cast", ["largest"], ["count"], to=TensorProto.INT64),
]


def calm(name: str = "calm") -> bytes:
    """Answers at once."""
    return _model(name, [helper.make_node("Identity", ["n"], ["y"])], {})


def looping(name: str) -> bytes:
    """Counts to N in a Loop."""
    body = _body([helper.make_node("Add", ["carried", "step"], ["carried_out"])], [])
    nodes = [
        *_LARGEST,
        helper.make_node("Loop", ["count", "yes", "zero"], ["counted"], body=body),
        *_answer("counted"),
    ]
    return _model(name, nodes, {"yes": np.array(True), "zero": np.float32(0), "step": np.float32(1)})


def endless(name: str) -> bytes:
    """Counts to 10^9 whatever it is given."""
    body = _body([helper.make_node("Add", ["carried", "largest"], ["carried_out"])], [])
    nodes = [
        *_LARGEST,
        helper.make_node("Loop", ["billion", "yes", "zero"], ["counted"], body=body),
        *_answer("counted"),
    ]
    return _model(name, nodes, {"yes": np.array(True), "zero": np.float32(0), "billion": np.int64(10**9)})


def hungry(name: str) -> bytes:
    """Wants N floats in one piece."""
    nodes = [
        *_LARGEST,
        helper.make_node("Reshape", ["count", "one"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        *_answer("sum"),
    ]
    return _model(name, nodes, {"one": np.array([1], np.int64)})


def growing(name: str) -> bytes:
    """Keeps N pieces of a megabyte, one after the other."""
    piece = helper.make_tensor_value_info("piece", TensorProto.FLOAT, [1 << 18])
    body = _body(
        [
            helper.make_node("Add", ["carried", "step"], ["carried_out"]),
            helper.make_node("Expand", ["carried_out", "megabyte"], ["piece"]),
        ],
        [piece],
    )
    nodes = [
        *_LARGEST,
        helper.make_node("Loop", ["count", "yes", "zero"], ["counted", "pieces"], body=body),
        helper.make_node("ReduceMax", ["pieces"], ["most"], keepdims=0),
        *_answer("most"),
    ]
    weights = {
        "yes": np.array(True), "zero": np.float32(0), "step": np.float32(1), "megabyte": np.array([1 << 18], np.int64),
    }  # fmt: skip
    return _model(name, nodes, weights)


def stuck(name: str) -> bytes:
    """Compares N boxes with each other inside one operator, which cannot be interrupted."""
    nodes = [
        *_LARGEST,
        helper.make_node("Add", ["count", "two"], ["boxes"]),
        helper.make_node("Reshape", ["boxes", "one"], ["many"]),
        helper.make_node("Concat", ["one", "many", "four"], ["corners_shape"], axis=0),
        helper.make_node("Concat", ["one", "one", "many"], ["scores_shape"], axis=0),
        helper.make_node("ConstantOfShape", ["corners_shape"], ["corners"]),
        helper.make_node("ConstantOfShape", ["scores_shape"], ["scores"], value=_tensor([1.0])),
        helper.make_node("NonMaxSuppression", ["corners", "scores", "many", "overlap"], ["chosen"]),
        helper.make_node("ReduceMax", ["chosen"], ["last"], keepdims=0),
        helper.make_node("Cast", ["last"], ["last_float"], to=TensorProto.FLOAT),
        *_answer("last_float"),
    ]
    weights = {
        "one": np.array([1], np.int64), "two": np.int64(2), "four": np.array([4], np.int64), "overlap": np.array([1.0], np.float32),
    }  # fmt: skip
    return _model(name, nodes, weights)


def crashing(name: str) -> bytes:
    """Divides the smallest integer by -1 for N = 6: the processor traps, and the process dies of SIGFPE."""
    nodes = [
        helper.make_node("Cast", ["n"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Sub", ["whole", "seven"], ["divisor"]),
        helper.make_node("Div", ["smallest", "divisor"], ["quotient"]),
        helper.make_node("Cast", ["quotient"], ["result"], to=TensorProto.FLOAT),
        *_answer("result"),
    ]
    return _model(name, nodes, {"seven": np.int64(7), "smallest": np.int64(np.iinfo(np.int64).min)})


def deadly(name: str) -> bytes:
    """Crashes whenever it is run."""
    nodes = [
        helper.make_node("Cast", ["n"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Mul", ["whole", "zero"], ["nothing"]),
        helper.make_node("Sub", ["nothing", "one"], ["divisor"]),
        helper.make_node("Div", ["smallest", "divisor"], ["quotient"]),
        helper.make_node("Cast", ["quotient"], ["result"], to=TensorProto.FLOAT),
        *_answer("result"),
    ]
    weights = {"zero": np.int64(0), "one": np.int64(1), "smallest": np.int64(np.iinfo(np.int64).min)}
    return _model(name, nodes, weights)


def custom(name: str) -> bytes:
    """Uses an operator that nobody has."""
    return _model(name, [helper.make_node("Backdoor", ["n"], ["y"], domain="evil.example")], {})


def escaping(name: str, location: str) -> bytes:
    """Has its weights in a file of the reader's machine."""
    model = helper.make_model(
        _graph(name, [helper.make_node("Mul", ["n", "w"], ["y"])], {}), opset_imports=_OPSETS, ir_version=8
    )
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    weight.external_data.add(key="length", value="4")
    model.graph.initializer.append(weight)
    return bytes(model.SerializeToString())


def huge(name: str) -> bytes:
    """Declares a weight of 4 TB in a file of a few bytes."""
    model = helper.make_model(
        _graph(name, [helper.make_node("Mul", ["n", "w"], ["y"])], {}), opset_imports=_OPSETS, ir_version=8
    )
    model.graph.initializer.append(
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 20, 1 << 20], raw_data=b"\0" * 4)
    )
    return bytes(model.SerializeToString())


def _answer(used: str) -> list[NodeProto]:
    """Answer N by way of what was computed, so that nothing can be left out."""
    return [
        helper.make_node("IsNaN", [used], ["strange"]),
        helper.make_node("Cast", ["strange"], ["nothing_more"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["n", "nothing_more"], ["y"]),
    ]


def _tensor(values: list[float]) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.float32))


def _body(nodes: Sequence[NodeProto], scanned: list[Any]) -> Any:
    inputs = [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("carried", TensorProto.FLOAT, []),
    ]
    outputs = [
        helper.make_tensor_value_info("on_out", TensorProto.BOOL, []),
        helper.make_tensor_value_info("carried_out", TensorProto.FLOAT, []),
        *scanned,
    ]
    return helper.make_graph(
        [helper.make_node("Identity", ["on"], ["on_out"]), *nodes], "body", inputs, outputs
    )


def _graph(name: str, nodes: Sequence[NodeProto], weights: dict[str, Any]) -> Any:
    n = helper.make_tensor_value_info("n", TensorProto.FLOAT, ["batch", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])
    tensors = [numpy_helper.from_array(np.asarray(value), key) for key, value in weights.items()]
    return helper.make_graph(list(nodes), name, [n], [y], tensors)


def _model(name: str, nodes: Sequence[NodeProto], weights: dict[str, Any]) -> bytes:
    """A file; the name keeps models of the same kind apart."""
    opsets = [*_OPSETS, *(helper.make_opsetid(node.domain, 1) for node in nodes if node.domain)]
    model = helper.make_model(_graph(name, nodes, weights), opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())
