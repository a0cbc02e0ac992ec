"""What runs need beside weights: one arena for all graphs of a process, given back when it is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from pythiadb.models.runtime import Graph, trim_arena

ROWS = 400_000
NEED = ROWS * 32 * 4  # bytes of the largest tensor inside
PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """Sums of products with a column: [rows, 1] becomes [rows, 32] inside, and one number outside."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
    column = helper.make_tensor("column", TensorProto.FLOAT, [1, 32], [1.0] * 32)
    nodes = [
        helper.make_node("Mul", ["x", "column"], ["wide"]),
        helper.make_node("ReduceSum", ["wide"], ["y"], keepdims=0),
    ]
    made = helper.make_graph(nodes, "sums", [x], [y], [column])
    path = tmp_path / "model.onnx"
    opsets = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


def total(graph: Graph, rows: int = ROWS) -> float:
    return float(graph.run({"x": np.ones((rows, 1), np.float32)}, ["y"])[0])


def measured(graph: Path, script: str) -> list[int]:
    """Run lines in a process of their own, whose memory other tests have not used; return the numbers that they print."""
    prelude = (
        "import sys; from pathlib import Path\n"
        "from tests.unit.engine.test_engine_memory import PAGE, ROWS, total\n"
        "from pythiadb.models.runtime import Graph, trim_arena\n"
        "path = Path(sys.argv[1])\n"
        "def show(): print(int(Path('/proc/self/statm').read_bytes().split()[1]) * PAGE)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", prelude + script, graph],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    return [int(line) for line in done.stdout.split()]


def test_graphs_share_what_their_runs_need(graph: Path) -> None:
    before, first, second = measured(
        graph,
        "a, b = Graph(path, 2), Graph(path, 1)\n"
        "total(a, 1), total(b, 1), show(), total(a), show(), total(b), show()",
    )
    assert first - before > 0.9 * NEED
    assert second - first < 0.1 * NEED


def test_memory_goes_back_when_it_is_trimmed(graph: Path) -> None:
    full, trimmed = measured(
        graph,
        "a = Graph(path, 1)\ntotal(a), show(), trim_arena(), show()\nassert total(a) == ROWS * 32",
    )
    assert full - trimmed > 0.9 * NEED


def test_a_refused_request_does_not_make_the_next_one_larger(graph: Path, tmp_path: Path) -> None:
    shape = helper.make_tensor_value_info("shape", TensorProto.INT64, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["y"], keepdims=0),
    ]
    greedy = helper.make_graph(nodes, "greedy", [shape], [y])
    opsets = [helper.make_opsetid("", 17)]
    path = tmp_path / "greedy.onnx"
    path.write_bytes(helper.make_model(greedy, opset_imports=opsets, ir_version=8).SerializeToString())
    before, after = measured(
        graph,
        "import contextlib, numpy as np, pythiadb.errors\n"
        "def taken(): print(int(Path('/proc/self/statm').read_bytes().split()[0]) * PAGE)\n"
        "a, greedy = Graph(path, 1), Graph(path.with_name('greedy.onnx'), 1)\n"
        "with contextlib.suppress(pythiadb.errors.InvalidModel):\n"
        "    greedy.run({'shape': np.array([1 << 45])}, ['y'])\n"
        "    sys.exit('memory for 2^45 numbers was not refused')\n"
        "taken(), total(a), taken()",
    )
    assert after - before < 4 * NEED  # of addresses, not of memory


def test_trimming_leaves_runs_alone(graph: Path) -> None:
    opened, ended = Graph(graph, 1), threading.Event()

    def trim() -> None:
        while not ended.is_set():
            trim_arena()

    trimmer = threading.Thread(target=trim)
    trimmer.start()
    try:
        for rows in (1, ROWS, 1000, ROWS // 3, 7):
            assert total(opened, rows) == rows * 32
    finally:
        ended.set()
        trimmer.join()
