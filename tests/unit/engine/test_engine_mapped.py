"""Mapped weights on disk: made once, found again, never trusted when they were touched."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from pythiadb.errors import InvalidModel
from pythiadb.models.mapped import MappedStore
from pythiadb.models.runtime import Graph, save_optimized

PACKAGE = "c" * 64
WEIGHTS = np.random.default_rng(3).normal(size=(64, 32)).astype(np.float32)
INPUT = np.random.default_rng(4).normal(size=(5, 64)).astype(np.float32)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A product with a matrix, which ONNX Runtime packs for its kernel."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 32])
    weights = [numpy_helper.from_array(WEIGHTS, "w")]
    made = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "product", [x], [y], weights)
    path = tmp_path / "model.onnx"
    opsets = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


class Builder:
    """Writes the optimized graph, and counts how often."""

    def __init__(self, graph: Path) -> None:
        self.graph = graph
        self.runs = 0

    def __call__(self, target: Path, weights: str) -> None:
        self.runs += 1
        save_optimized(self.graph, target, weights, 1)


def store(tmp_path: Path, run: str = "first") -> MappedStore:
    return MappedStore(tmp_path / "mapped", run)


def test_made_graph_answers_as_the_original(tmp_path: Path, graph: Path) -> None:
    mapped = store(tmp_path).make(PACKAGE, Builder(graph))
    found = Graph(mapped.graph, 1).run({"x": INPUT}, ["y"])[0]
    bare = ort.InferenceSession(str(graph)).run(["y"], {"x": INPUT})[0]
    np.testing.assert_allclose(found, bare, rtol=1e-6)
    assert mapped.initializer_bytes == WEIGHTS.nbytes
    assert mapped.prepacked_bytes >= WEIGHTS.nbytes
    assert mapped.metadata_bytes == mapped.graph.stat().st_size
    assert mapped.weights.stat().st_size >= mapped.initializer_bytes + mapped.prepacked_bytes


def test_many_make_it_once(tmp_path: Path, graph: Path) -> None:
    builder, made = Builder(graph), store(tmp_path)
    threads = [threading.Thread(target=made.make, args=(PACKAGE, builder)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert builder.runs == 1
    assert sorted(p.suffix for p in (tmp_path / "mapped").iterdir()) == [""]


@pytest.mark.parametrize("name", ["graph.onnx", "weights.bin", "manifest.json"])
@pytest.mark.parametrize("how", ["flip", "cut", "delete"])
def test_touched_files_are_made_anew(tmp_path: Path, graph: Path, name: str, how: str) -> None:
    """A flipped byte is found in the next run of the engine, everything else at once."""
    builder = Builder(graph)
    mapped = store(tmp_path).make(PACKAGE, builder)
    path = mapped.folder / name
    content = bytearray(path.read_bytes())
    path.unlink()
    if how != "delete":
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content if how == "flip" else content[: len(content) // 2])
    assert store(tmp_path, "second" if how == "flip" else "first").find(PACKAGE) is None
    again = store(tmp_path, "second").make(PACKAGE, builder)
    assert builder.runs == 2
    np.testing.assert_allclose(Graph(again.graph, 1).run({"x": INPUT}, ["y"])[0], INPUT @ WEIGHTS, rtol=1e-4)


def test_failure_is_not_tried_again_at_once(tmp_path: Path, graph: Path) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        store(tmp_path).make(PACKAGE, fail)
    assert [row["status"] for row in store(tmp_path).status({})] == ["FAILED"]
    builder = Builder(graph)
    with pytest.raises(InvalidModel, match="could not be put into shared memory") as caught:
        store(tmp_path).make(PACKAGE, builder)
    assert caught.value.detail == "no space left"
    assert store(tmp_path, "second").make(PACKAGE, builder).is_there
    assert builder.runs == 1


def test_status_follows_the_files(tmp_path: Path, graph: Path) -> None:
    made = store(tmp_path)
    assert made.status({}) == []
    mapped = made.make(PACKAGE, Builder(graph))
    (row,) = made.status({PACKAGE: [0x7F00, 0x7E00]})
    assert (row["status"], row["pins"], row["address"]) == ("ENABLED", 2, "0000000000007F00")
    assert row["prepacked_bytes"] == mapped.prepacked_bytes
    made.remove(PACKAGE)
    (row,) = made.status({PACKAGE: [0x7F00]})
    assert (row["status"], row["pins"]) == ("RECLAIMING", 1)
    assert not mapped.is_there
    assert made.status({}) == []
