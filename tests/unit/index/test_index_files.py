from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pythiadb.errors import CorruptedIndex, OutOfMemory
from pythiadb.index import container
from pythiadb.index.builder import Builder
from pythiadb.index.definition import Column
from pythiadb.index.effort import Effort
from pythiadb.index.segment import open_segment
from pythiadb.index.version import open_version
from tests.unit.index.building import build_index, build_segment, clustered, definition, publish

KINDS = ["flat", "partitions", "graph"]
OF = definition(key_type="text", columns=(Column("n", "int4"), Column("word", "text")))


@pytest.fixture(scope="module", params=KINDS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("segments")
    columns = {"n": list(range(200)), "word": [f"w{n % 9}" for n in range(200)]}
    segment = build_segment(
        root, OF, [f"k{n}" for n in range(200)], clustered(200, 16), request.param, columns
    )
    return root / "segments" / segment["name"]


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / built.name))


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


FUZZED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZED
@given(data=st.data())
def test_any_changed_byte_is_noticed(copy: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(files_of(copy)))
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(whole)
    changed[place] ^= 1 << bit
    path.write_bytes(changed)
    try:
        with pytest.raises(CorruptedIndex):
            open_segment(copy, OF, verify=True)
    finally:
        path.write_bytes(whole)
    open_segment(copy, OF, verify=True)


@FUZZED
@given(data=st.data())
def test_a_file_of_another_length_is_noticed_without_reading_it(copy: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(files_of(copy)))
    whole = path.read_bytes()
    path.write_bytes(
        data.draw(st.sampled_from([whole[: data.draw(st.integers(0, len(whole) - 1))], whole + b"\0"]))
    )
    try:
        with pytest.raises(CorruptedIndex):
            open_segment(copy, OF, verify=False)
    finally:
        path.write_bytes(whole)


def test_a_missing_file_or_folder_is_noticed(copy: Path) -> None:
    with pytest.raises(CorruptedIndex, match="no manifest"):
        open_segment(copy / "nowhere", OF, verify=False)
    for path in files_of(copy):
        away = path.with_suffix(".away")
        path.rename(away)
        with pytest.raises(CorruptedIndex):
            open_segment(copy, OF, verify=False)
        away.rename(path)


def test_files_of_another_build_are_noticed(copy: Path, tmp_path: Path) -> None:
    columns = {"n": list(range(200)), "word": [""] * 200}
    other = build_segment(tmp_path, OF, [f"x{n}" for n in range(200)], clustered(200, 16, 7), "flat", columns)
    shutil.copy(tmp_path / "segments" / other["name"] / "vectors", copy / "vectors")
    with pytest.raises(CorruptedIndex):
        open_segment(copy, OF, verify=True)


def test_a_file_of_a_later_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    container.write(path, "kind", {}, {"a": np.arange(3)})
    assert container.read(path, "kind", verify=True)[1]["a"].tolist() == [0, 1, 2]
    with pytest.raises(CorruptedIndex, match="not a file of kind"):
        container.read(path, "other", verify=False)
    raw = bytearray(path.read_bytes())
    raw[8] = 2
    raw[container._PREAMBLE.size : container._PREAMBLE.size + 4] = container._CHECK.pack(
        container.zlib.crc32(bytes(raw[: container._PREAMBLE.size]))
    )
    path.write_bytes(raw)
    with pytest.raises(CorruptedIndex, match="format 2"):
        container.read(path, "kind", verify=False)


def test_nothing_is_seen_of_a_build_that_broke_off(tmp_path: Path) -> None:
    folder = tmp_path / "segments" / "one"

    def break_off(stage: str, share: float) -> None:
        raise OSError(28, "No space left on device")

    with (
        pytest.raises(OSError, match="No space"),
        Builder(folder, definition(), progress=break_off) as builder,
    ):
        builder.add(np.arange(100), clustered(100, 16))
        builder.finish("partitions")
    assert list((tmp_path / "segments").iterdir()) == []


@pytest.mark.parametrize("kind", ["partitions", "graph"])
@pytest.mark.parametrize("missing", [1, 3000, 100_000])
def test_a_disk_that_gets_full_is_noticed(tmp_path: Path, kind: str, missing: int) -> None:
    """At the latest by whoever closes the file: not one byte may be lost in silence."""
    of, rows = definition(organization=kind), clustered(3000, 16)
    whole = tmp_path / "segments" / build_segment(tmp_path, of, np.arange(3000), rows, kind)["name"]
    largest = max(path.stat().st_size for path in whole.iterdir())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - missing, before[1]))
    try:
        with pytest.raises(OSError, match="File too large|not written whole"):
            build_segment(tmp_path, of, np.arange(3000), rows, kind)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "segments").iterdir()) == [whole]


@pytest.mark.parametrize("stage", ["training", "assigning", "writing"])
def test_a_killed_build_leaves_no_segment_and_the_next_one_works(tmp_path: Path, stage: str) -> None:
    script = f"""
import os, signal, sys
import numpy as np
from pathlib import Path
from pythiadb.index.builder import Builder
from tests.unit.index.building import clustered, definition
def progress(stage, share):
    if stage == {stage!r}:
        os.kill(os.getpid(), signal.SIGKILL)
with Builder(Path(sys.argv[1]), definition(), progress=progress) as builder:
    builder.add(np.arange(500), clustered(500, 16))
    builder.finish("partitions")
"""
    folder = tmp_path / "segments" / "one"
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], env={**os.environ, "PYTHONPATH": "."}, check=False
    )
    assert done.returncode == -9
    assert not folder.exists()
    with pytest.raises(CorruptedIndex):
        open_segment(folder, definition(), verify=False)
    with Builder(folder, definition()) as builder:
        builder.add(np.arange(500), clustered(500, 16))
        builder.finish("partitions")
    assert open_segment(folder, definition(), verify=True).rows == 500
    assert [path.name for path in folder.parent.iterdir()] == ["one"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_answers_alike_when_opened_again(tmp_path: Path, kind: str) -> None:
    of = definition()
    rows = clustered(600, 16)
    segment = build_segment(tmp_path, of, np.arange(600), rows, kind)
    version = publish(tmp_path, of, [segment], {segment["name"]: np.arange(5, 50)})
    folder = tmp_path / "versions" / version.token
    for others in ((), (version,)):
        again = open_version(folder, tmp_path / "segments", verify=False, others=others)
        assert (again.number, again.rows, again.bytes) == (version.number, 555, version.bytes)
        for query in rows[:10]:
            one, other = (each.search(query, 10, Effort(5, 50, 50)) for each in (version, again))
            assert one.keys == other.keys
            assert one.distances.tolist() == other.distances.tolist()
    assert again.parts[0].segment is version.parts[0].segment


def test_damaged_versions_are_noticed(tmp_path: Path) -> None:
    version = build_index(tmp_path, definition(), np.arange(50), clustered(50, 16))
    folder = tmp_path / "versions" / version.token
    for path in files_of(folder):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(CorruptedIndex):
            open_version(folder, tmp_path / "segments", verify=True)
        path.write_bytes(whole)
    shutil.rmtree(tmp_path / "segments" / version.parts[0].segment.name)
    with pytest.raises(CorruptedIndex):
        open_version(folder, tmp_path / "segments", verify=False)


def private_bytes() -> dict[str, int]:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_mapped_not_copied(tmp_path: Path, kind: str) -> None:
    of = definition(dimensions=64)
    count = 30_000
    if kind == "graph":
        of = definition(dimensions=64, parameters={"neighbors": 8, "efconstruction": 10})
    version = build_index(tmp_path, of, np.arange(count), clustered(count, 64), kind)
    folder = tmp_path / "versions" / version.token
    script = f"""
import numpy as np
from pathlib import Path
from pythiadb.index.version import open_version
from pythiadb.index.effort import Effort
import pythiadb.index.library
from tests.unit.index.test_index_files import private_bytes
warm = np.ones((50, 50), np.float32) @ np.ones((50, 50), np.float32)
before = private_bytes()["Private_Dirty"]
version = open_version(Path({str(folder)!r}), Path({str(tmp_path / "segments")!r}), verify=True)
for query in np.random.default_rng(1).normal(size=(50, 64)):
    version.search(query.astype(np.float32), 10, Effort(1000, 500, 500))
    version.exact(query.astype(np.float32), 10)
print(private_bytes()["Private_Dirty"] - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": "."},
        check=True,
        capture_output=True,
        text=True,
    )
    assert version.bytes > 7_500_000
    assert int(done.stdout.strip().splitlines()[-1]) < version.bytes / 2


def test_a_process_that_may_open_no_more_files_does_not_blame_the_file(built: Path) -> None:
    open_segment(built, OF, verify=False)  # imports what it needs
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = os.dup(0)
    os.close(last)
    resource.setrlimit(resource.RLIMIT_NOFILE, (last, limits[1]))
    try:
        with pytest.raises(OutOfMemory, match="cannot open one more file") as caught:
            open_segment(built, OF, verify=False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "ulimit -n" in str(caught.value.hint)
    open_segment(built, OF, verify=True)
