"""EfficientNet-Lite0 as a folder that loads: `python -m tools.efficientnet_lite FOLDER [--features]`.

What is published are a PyTorch checkpoint and the network's description. The checkpoint is read without PyTorch, and without
running anything that it holds; the graph is put together from the description: a stem, 16 blocks, a head of 1280 features and
a thousand ImageNet classes. Batch normalisations are folded into the convolutions before them.
"""

from __future__ import annotations

import argparse
import json
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tools.fetch_models import EFFICIENTNET, fetch

HERE = Path(__file__).resolve().parent
SIDE, FEATURES, CLASSES = 224, 1280, 1000
_EPSILON = 1e-3  # of the batch normalisations
# stride and number of the blocks of each stage; kernels and channels are those of the weights
_STAGES = ((1, 1), (2, 2), (2, 2), (2, 3), (1, 3), (2, 4), (1, 1))
_STORAGES: dict[str, type[Any]] = {"FloatStorage": np.float32, "LongStorage": np.int64}
PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.498, 0.498, 0.498],
    "image_std": [0.502, 0.502, 0.502],
}

Weights = dict[str, NDArray[Any]]


def read_checkpoint(path: Path) -> Weights:
    """Return the tensors of a PyTorch file of the old form: pickles, then raw storages. Only tensors are let through."""
    with path.open("rb") as file:
        for _ in range(3):  # magic number, protocol, byte order
            _Reader(file).load()
        views: dict[str, tuple[tuple[str, str], int, tuple[int, ...], tuple[int, ...]]] = _Reader(file).load()
        keys: list[str] = _Reader(file).load()
        kinds = {key: _STORAGES[kind] for (kind, key), *_ in views.values()}
        storages = {key: _storage(file, np.dtype(kinds[key])) for key in keys}
    return {
        name: np.lib.stride_tricks.as_strided(
            storages[key][offset:], size, [step * storages[key].itemsize for step in strides]
        )
        for name, ((_, key), offset, size, strides) in views.items()
    }


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name == "OrderedDict":
            return OrderedDict
        if name == "_rebuild_tensor_v2":
            return lambda storage, offset, size, strides, *_: (storage, offset, size, strides)
        if name in _STORAGES:
            return name
        raise pickle.UnpicklingError(f"the file holds {module}.{name}, which is no tensor")

    def persistent_load(self, pid: Any) -> Any:
        return pid[1], pid[2]  # type and key of a storage


def _storage(file: BinaryIO, dtype: np.dtype[Any]) -> NDArray[Any]:
    count = int.from_bytes(file.read(8), "little")
    return np.frombuffer(file.read(count * dtype.itemsize), dtype)


class Builder:
    """Nodes and folded weights of the graph."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def node(self, operator: str, *inputs: str, output: str = "", **settings: Any) -> str:
        """Add a node and return its output."""
        output = output or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **settings))
        return output

    def weight(self, values: NDArray[Any]) -> str:
        """Add a constant and return its name."""
        name = f"weight_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def get(self, name: str) -> NDArray[Any]:
        """Return a tensor of the checkpoint."""
        return self._weights[name]

    def convolution(self, value: str, name: str, norm: str, stride: int = 1, *, relu: bool = True) -> str:
        """Add a convolution without bias and its batch normalisation, padded as TensorFlow pads."""
        kernel = self.get(f"{name}.weight").astype(np.float64)
        scale = self.get(f"{norm}.weight") / np.sqrt(
            self.get(f"{norm}.running_var").astype(np.float64) + _EPSILON
        )
        bias = self.get(f"{norm}.bias") - self.get(f"{norm}.running_mean") * scale
        folded = (kernel * scale[:, None, None, None]).astype(np.float32)
        value = self.node(
            "Conv",
            value,
            self.weight(folded),
            self.weight(bias.astype(np.float32)),
            strides=[stride, stride],
            auto_pad="SAME_UPPER",
            group=len(folded) if kernel.shape[1] == 1 else 1,
        )
        if not relu:
            return value
        return self.node(
            "Clip", value, self.weight(np.array(0, np.float32)), self.weight(np.array(6, np.float32))
        )


def build(weights: Weights, *, features: bool = False) -> onnx.ModelProto:
    """Return the graph from pixels [batch, 3, 224, 224] to `logits` [batch, 1000], or to `embedding` [batch, 1280]."""
    graph = Builder(weights)
    value = graph.convolution("pixel_values", "_conv_stem", "_bn0", 2)
    for number, stride in enumerate(_strides()):
        name = f"_blocks.{number}."
        inner = value
        if f"{name}_expand_conv.weight" in weights:
            inner = graph.convolution(inner, f"{name}_expand_conv", f"{name}_bn0")
        inner = graph.convolution(inner, f"{name}_depthwise_conv", f"{name}_bn1", stride)
        inner = graph.convolution(inner, f"{name}_project_conv", f"{name}_bn2", relu=False)
        same = stride == 1 and _channels(weights, number) == _channels(weights, number - 1)
        value = graph.node("Add", inner, value) if same else inner
    value = graph.convolution(value, "_conv_head", "_bn1")
    output, width = ("embedding", FEATURES) if features else ("logits", CLASSES)
    value = graph.node("GlobalAveragePool", value)
    value = graph.node("Flatten", value, output=output if features else "", axis=1)
    if not features:
        last = (graph.weight(graph.get("_fc.weight")), graph.weight(graph.get("_fc.bias")))
        graph.node("Gemm", value, *last, output=output, transB=1)
    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    made = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", width])
    body = helper.make_graph(graph.nodes, "EfficientNet-Lite0", [pixels], [made], graph.constants)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _strides() -> Iterator[int]:
    """Yield the stride of each block: only the first of a stage makes the picture smaller."""
    for stride, blocks in _STAGES:
        yield from (stride, *[1] * (blocks - 1))


def _channels(weights: Weights, block: int) -> int:
    """Return the channels behind a block, the stem being -1."""
    return len(weights["_conv_stem.weight" if block < 0 else f"_blocks.{block}._project_conv.weight"])


def write_folder(checkpoint: Path, folder: Path, *, features: bool = False) -> Path:
    """Write graph, preprocessing and configuration as a model folder and return it; `features` leaves the classes out."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save_model(build(read_checkpoint(checkpoint), features=features), folder / "model.onnx")
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=1) + "\n")
    config: dict[str, Any] = {"model_type": "efficientnet"}
    if not features:
        config["architectures"] = ["EfficientNetForImageClassification"]
    (folder / "config.json").write_text(json.dumps(config) + "\n")
    return folder


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--features", action="store_true", help="an embedding of 1280 numbers, no classes")
    given = parser.parse_args()
    weights = fetch(EFFICIENTNET, HERE.parent / ".cache" / "models")
    (checkpoint,) = weights.glob("*.pth")
    print(f"EfficientNet-Lite0 is in {write_folder(checkpoint, given.folder, features=given.features)}")


if __name__ == "__main__":
    main()
