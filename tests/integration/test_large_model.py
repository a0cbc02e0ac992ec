"""A model of more than 2 GB, stored, run and shared like any other."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import pythiadb
from pythiadb.postgres import cluster
from pythiadb.postgres.layout import Layout

ROWS, WIDTH = 9_000_000, 64  # 2.3 GB of float32
STEP = 250_000  # rows written at once
NEEDED = 12 << 30  # bytes of memory and of disk
METADATA = '{"function":"regression","regressionOutput":"y","input":{"row":["N"]}}'
ASKED = (0, 1, 4_700_000, 8_388_607, 8_388_608, 8_999_998, 8_999_999)  # row 8,388,608 begins at 2 GiB

pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("PYTHIA_LARGE_MODEL"), reason="takes minutes: set PYTHIA_LARGE_MODEL=1"
    ),
    pytest.mark.skipif(
        psutil.virtual_memory().available < NEEDED or shutil.disk_usage(tempfile.gettempdir()).free < NEEDED,
        reason="needs 12 GiB of memory and of disk space",
    ),
]


def table(first: int, count: int) -> NDArray[np.float32]:
    """Some rows of the weights."""
    rows = np.arange(first, first + count, dtype=np.int64)[:, np.newaxis]
    return np.asarray((rows * 7 + np.arange(WIDTH) * 13) % 1009, dtype=np.float32)


def write(folder: Path) -> Path:
    """Write a graph that adds up the row with a number, and its table beside it; return the graph's path."""
    with (folder / "table.bin").open("wb") as stream:
        for first in range(0, ROWS, STEP):
            stream.write(table(first, STEP).tobytes())
    weight = TensorProto(
        name="table", data_type=TensorProto.FLOAT, dims=[ROWS, WIDTH], data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", "table.bin"), ("offset", "0"), ("length", str(ROWS * WIDTH * 4))):
        weight.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("Squeeze", ["row", "last"], ["number"]),
        helper.make_node("Gather", ["table", "number"], ["found"]),
        helper.make_node("ReduceSum", ["found", "last"], ["y"], keepdims=1),
    ]
    row = helper.make_tensor_value_info("row", TensorProto.INT64, ["batch", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])
    last = numpy_helper.from_array(np.array([1], np.int64), "last")
    graph = helper.make_graph(nodes, "large", [row], [y], [weight, last])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "large.onnx").write_bytes(model.SerializeToString())
    return folder / "large.onnx"


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="pythia-large-"))
    path.chmod(0o755)
    yield path
    cluster.stop(path / "shop")
    shutil.rmtree(path)


def ask(db: pythiadb.Connection) -> list[float]:
    rows = db.execute(
        "SELECT pythia.prediction('large'::regclass, jsonb_build_object('N', n)) FROM unnest(%s::bigint[]) AS n",
        (list(ASKED),),
    ).fetchall()
    return [row[0] for row in rows]


def test_model_over_two_gigabytes(folder: Path) -> None:
    """Loaded, run out of its files, then out of the mapped ones: every row is the one that was asked for."""
    expected = [float(table(row, 1).sum()) for row in ASKED]
    with pythiadb.connect(folder / "shop", autocommit=True) as db:
        graph = write(folder)
        pythiadb.load_model(db, graph, "large", metadata=METADATA)
        (folder / "table.bin").unlink()
        assert ask(db) == expected
        db.execute("CALL dbms_vector.inmemory_onnx_model('large', true)")
        assert ask(db) == expected
        status = db.execute("SELECT pythia.engine_status()").fetchone()
        assert status is not None
        (memory,) = status[0]["memory"]
        assert memory["status"] == "ENABLED"
        assert memory["initializer_bytes"] >= ROWS * WIDTH * 4 > 2**31
        (pid,) = (worker["pid"] for worker in status[0]["workers"])
        (mapped,) = (Layout(folder / "shop").engine / "cache" / "mapped").glob("*/weights.bin")
        assert str(mapped) in Path(f"/proc/{pid}/maps").read_text()
        assert psutil.Process(pid).memory_full_info().uss < 2**30
