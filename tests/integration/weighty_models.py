"""A model that is large enough to have its weights in a file of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tests.unit.models.small_models import string_graph

INNER, WIDTH = 4096, 96
METADATA = '{"function":"embedding","embeddingOutput":"embedding","input":{"input":["DATA"]}}'
KINDS = ("cat", "dog", "fish")


def weights(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The two matrices that the model multiplies with."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(len(KINDS), INNER)).astype(np.float32),
        rng.normal(size=(INNER, WIDTH)).astype(np.float32),
    )


def weight_bytes() -> int:
    """The bytes of both matrices."""
    return 4 * INNER * (len(KINDS) + WIDTH)


def graph(seed: int = 0) -> onnx.ModelProto:
    """From cat, dog or fish to a vector: a row of the product of both matrices."""
    model = string_graph(output="kind")
    first, second = weights(seed)
    model.graph.initializer.extend(
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")]
    )
    model.graph.node.extend(
        [
            helper.make_node("MatMul", ["kind", "first"], ["inner"]),
            helper.make_node("MatMul", ["inner", "second"], ["embedding"]),
        ]
    )
    del model.graph.output[:]
    model.graph.output.append(
        helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, ["batch", WIDTH])
    )
    return model


def save(folder: Path, seed: int = 0) -> Path:
    """Write the model as animals.onnx with its weights in animals.data beside it."""
    path = folder / "animals.onnx"
    onnx.save_model(
        graph(seed), path, save_as_external_data=True, location="animals.data", size_threshold=1024
    )
    return path


def embedding(kind: str, seed: int = 0) -> NDArray[Any]:
    """What the model says, by numpy."""
    first, second = weights(seed)
    return np.asarray(first[KINDS.index(kind)].astype(np.float64) @ second)
