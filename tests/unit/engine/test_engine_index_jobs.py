"""What a build tells of itself while it runs, and when it stops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from pythiadb.engine.build_progress import BuildProgress, Dropped, counted
from pythiadb.engine.index_jobs import IndexJobs


class Store:
    """Takes notes; an answer that is an exception is raised."""

    def __init__(self, answer: bool | Exception) -> None:
        self.answer = answer
        self.told: list[tuple[str, float]] = []

    def fail(self, index: Any, reason: str, sqlstate: str | None) -> None:
        self.told.append(("failed", 0.0))

    def note_error(self, index: Any, job: str, reason: str) -> None:
        self.told.append((f"noted {job}", 0.0))

    def set_progress(self, index: Any, stage: str, share: float) -> bool:
        self.told.append((stage, share))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def progress(store: Store) -> BuildProgress:
    return BuildProgress(store, SimpleNamespace())  # type: ignore[arg-type]


def test_reading_rows_is_progress() -> None:
    store = Store(answer=True)
    batches: Any = [[0] * 30, [0] * 30]
    assert list(counted(batches, 60, progress(store))) == batches
    assert store.told == [("loading", 0.0)]  # and not again so soon


def test_build_of_a_dropped_index_ends() -> None:
    with pytest.raises(Dropped):
        progress(Store(answer=False))("linking", 0.5)


def test_build_goes_on_without_a_server_to_tell() -> None:
    store = Store(psycopg.OperationalError("the server restarts"))
    progress(store)("linking", 0.5)
    assert store.told == [("linking", 0.5)]


@pytest.mark.parametrize(("job", "told"), [("build", "failed"), ("refresh", "noted refresh")])
def test_only_a_build_that_fails_fails_the_rebuild_that_waits_for_it(job: str, told: str) -> None:
    store = Store(answer=True)
    shared: Any = SimpleNamespace(files=None, versions=None, memory=None, settings=None)
    index: Any = SimpleNamespace(status="BUILDING", token="of the version before")
    IndexJobs(store, shared).note_failure(job, index, ValueError("why"))  # type: ignore[arg-type]
    assert store.told == [(told, 0.0)]
