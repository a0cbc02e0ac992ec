"""The folders of vector indexes: what is removed, and what is not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pythiadb.engine.index_files import IndexFiles
from pythiadb.index.definition import Definition
from pythiadb.index.manifest import Manifest, write_version

LONG_AGO = 1_000_000_000  # seconds since 1970
OF = Definition(1, "vector", 3, "COSINE", "int", "partitions")


@pytest.fixture
def files(tmp_path: Path) -> IndexFiles:
    return IndexFiles(tmp_path)


def add(files: IndexFiles, token: str, segment: str, at: float = LONG_AGO) -> None:
    """Make a version of one segment, last needed at a time."""
    (files.segments / segment).mkdir()
    segments = [{"name": segment, "kind": "flat", "rows": 1}]
    folder = write_version(files.versions, Manifest(1, token, OF, segments), {})
    for path in (folder, files.segments / segment):
        os.utime(path, (at, at))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_segments_of_versions_in_use_are_kept(files: IndexFiles) -> None:
    """However old: only versions and segments that nobody needs go."""
    add(files, "used", "needed")
    add(files, "old", "lone")
    files.clean({"used"}, 600)
    assert names(files.versions) == ["used"]
    assert names(files.segments) == ["needed"]


def test_a_version_stays_for_a_while_after_it_was_needed(files: IndexFiles) -> None:
    """Not after it was made: a statement of an old snapshot may ask for it, which has been the newest for days."""
    add(files, "old", "a")
    files.clean({"old"}, 600)
    files.clean({"new"}, 600)
    assert names(files.versions) == ["old"]
    assert names(files.segments) == ["a"]
    files.clean({"new"}, 0)  # there is no space
    assert names(files.versions) == names(files.segments) == []


@pytest.mark.parametrize(("jump", "kept"), [(-3600, False), (0, True), (3600, False)])
def test_a_clock_that_was_set_keeps_nothing_forever(files: IndexFiles, jump: float, kept: bool) -> None:
    """A version of the time to come is as old as one of long ago."""
    add(files, "unneeded", "a", time.time() - jump)
    add(files, "needed", "b", time.time() - jump)
    files.clean({"needed"}, 600)
    assert ("unneeded" in names(files.versions)) == kept
    assert "needed" in names(files.versions)
    files.clean(set(), 600)  # it was needed just now, by the clock as it is
    assert "needed" in names(files.versions)


def test_leftovers_of_a_process_that_died_go_at_once(files: IndexFiles) -> None:
    add(files, "used", "needed")
    for folder in (files.segments / ".0123.part", files.segments / "0123", files.versions / ".4567.part"):
        folder.mkdir()
    files.clean({"used"}, 600)
    assert names(files.versions) == ["used"]
    assert names(files.segments) == ["needed"]


def test_segments_that_are_being_made_stay(files: IndexFiles) -> None:
    """Until nothing is under way; then what no version has got is of no use."""
    begun, finished = files.new_segment(), files.new_segment()
    begun.with_name(f".{begun.name}.part").mkdir()
    finished.mkdir()
    files.clean(set(), 0, working=True)
    assert names(files.segments) == sorted([f".{begun.name}.part", finished.name])
    files.clean(set(), 600, working=False)
    assert names(files.segments) == []
