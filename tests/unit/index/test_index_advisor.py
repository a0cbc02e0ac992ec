"""The memory advisor's estimates against the files that segments really have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from pythiadb.index.advisor import Contents, advise, estimate
from pythiadb.index.builder import Builder
from pythiadb.index.definition import Column, Definition
from pythiadb.index.segment import open_segment


@pytest.mark.parametrize(
    ("kind", "vector_type", "rows", "dimensions", "key_type", "parameters"),
    [
        ("flat", "vector", 3_000, 64, "int", {}),
        ("partitions", "vector", 12_000, 100, "int", {}),
        ("partitions", "halfvec", 12_000, 31, "uuid", {"partitions": 40}),
        ("partitions", "vector", 6_000, 384, "text", {}),
        ("graph", "vector", 5_000, 100, "int", {}),
        ("graph", "vector", 5_000, 24, "uuid", {"neighbors": 32}),
        ("graph", "vector", 5_000, 24, "int", {"neighbors": 4}),
        ("flat", "bit", 10_000, 100, "int", {}),
        ("flat", "sparsevec", 5_000, 1_000, "int", {}),
    ],
)
def test_estimates_are_within_a_tenth_of_the_files(
    tmp_path: Path, kind: str, vector_type: str, rows: int, dimensions: int, key_type: str, parameters: dict[str, int]
) -> None:  # fmt: skip
    draw = np.random.default_rng(0)
    distance = "HAMMING" if vector_type == "bit" else "EUCLIDEAN"
    organization = "graph" if kind == "graph" else "partitions"
    columns = (Column("a", "int4"),)
    definition = Definition(1, vector_type, dimensions, distance, key_type, organization, 95, parameters, columns)  # fmt: skip
    texts = [f"key number {number:06d}" for number in range(rows)]
    keys = {"int": np.arange(rows), "text": texts, "uuid": [str(UUID(int=n)) for n in range(rows)]}[key_type]
    with Builder(tmp_path / "segment", definition) as builder:
        builder.add(
            keys, _vectors(draw, vector_type, rows, dimensions), {"a": draw.integers(0, 1 << 30, rows).tolist()}
        )  # fmt: skip
        builder.finish(kind)
    segment = open_segment(tmp_path / "segment", definition, verify=False)
    assert segment.kind == kind
    contents = Contents(rows, dimensions, vector_type, key_type, entries=20, text_key=len(texts[0]), column_bytes=4)  # fmt: skip
    assert estimate(kind, contents, parameters).total == pytest.approx(segment.bytes, rel=0.1)


def _vectors(draw: np.random.Generator, vector_type: str, rows: int, dimensions: int) -> object:
    if vector_type == "bit":
        return draw.integers(0, 256, (rows, -(-dimensions // 8)), np.uint8)
    if vector_type == "sparsevec":
        values = draw.random((rows, 20), np.float32)
        return [(np.arange(20, dtype=np.int32), row) for row in values]
    return draw.standard_normal((rows, dimensions), np.float32)


def test_parts_add_up() -> None:
    found = estimate("graph", Contents(1_000_000, 768)).to_json()
    assert found["total"] == sum(found[name] for name in ("vectors", "keys", "columns", "structure"))
    assert found["needed"] == found["total"] + found["building"]
    assert found["vectors"] == 1_000_000 * 768 * 4


def test_few_rows_have_no_structure() -> None:
    assert advise("graph", Contents(4_095, 100)).structure == 0
    assert advise("graph", Contents(4_096, 100)).structure > 0


MEASURE_BUILD = """
import sys, threading, time
from pathlib import Path
import numpy as np
from pythiadb.index import graph, partitions
from pythiadb.index.builder import Builder
from pythiadb.index.definition import Definition

def anonymous():
    line = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024

def watch():
    while not over.is_set():
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.002)

kind, rows, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
definition = Definition(1, "vector", 256, "EUCLIDEAN", "int", kind)
vectors = np.random.default_rng(0).standard_normal((rows, 256), np.float32)
with Builder(folder / "small", definition) as small:  # what is loaded once
    small.add(np.arange(5_000), vectors[:5_000])
    small.finish(kind)
with Builder(folder / "segment", definition) as builder:
    for start in range(0, rows, 1_000):
        builder.add(np.arange(start, start + 1_000), vectors[start : start + 1_000])
    del vectors
    before, peak, over = anonymous(), [0], threading.Event()
    thread = threading.Thread(target=watch)
    thread.start()
    builder.finish(kind)
    over.set()
    thread.join()
print(peak[0] - before)
"""


@pytest.mark.parametrize("kind", ["graph", "partitions"])
def test_building_takes_about_the_memory_that_was_said(tmp_path: Path, kind: str) -> None:
    """Of the process itself, beside the mapped files; measured in one of its own, where nothing else has left free memory."""
    rows = 20_000
    run = subprocess.run(
        [sys.executable, "-c", MEASURE_BUILD, kind, str(rows), str(tmp_path)], capture_output=True, text=True, check=True
    )  # fmt: skip
    said = estimate(kind, Contents(rows, 256)).building
    assert 0.5 * said < int(run.stdout) < 1.3 * said


def test_kinds_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="tree"):
        estimate("tree", Contents(1, 1))
