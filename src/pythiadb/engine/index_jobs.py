"""What the keeper does for one vector index: build, refresh, merge. Each job ends with a new version, or changes nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from pythiadb.engine.build_plan import SAMPLE_ROWS, Candidate, HeldBack, run_race
from pythiadb.engine.build_progress import BuildProgress, counted
from pythiadb.engine.index_files import IndexFiles
from pythiadb.engine.measuring import (
    FEWEST_CAPTURED,
    can_be_measured,
    changes,
    first_curve,
    has_rested,
    is_measured_badly,
    is_restructured,
    measure_version,
)
from pythiadb.engine.open_versions import OpenVersions
from pythiadb.engine.recorder import query_store
from pythiadb.engine.settings import Settings
from pythiadb.engine.vector_memory import Key, VectorMemory
from pythiadb.errors import CorruptedIndex, OutOfMemory, PythiaError
from pythiadb.index.accuracy import Report
from pythiadb.index.builder import Builder
from pythiadb.index.definition import Column, Definition
from pythiadb.index.maintain import entry, merge_segments, merged, plan_merge, refreshed
from pythiadb.index.manifest import Deleted, Manifest, write_version
from pythiadb.index.race import Outcome
from pythiadb.index.segment import open_segment
from pythiadb.index.version import IndexVersion, Part
from pythiadb.postgres.index_snapshot import Batch, Snapshot
from pythiadb.postgres.index_store import IndexStore, NewVersion, StoredIndex

ORGANIZATIONS = {"INMEMORY NEIGHBOR GRAPH": "graph", "NEIGHBOR PARTITIONS": "partitions"}
ORGANIZATION_NAMES = {name: written for written, name in ORGANIZATIONS.items()}
Finish = Callable[[StoredIndex], None]


@dataclass(frozen=True, slots=True)
class Shared:
    """What the jobs of all databases have in common."""

    files: IndexFiles
    versions: OpenVersions
    memory: VectorMemory
    settings: Settings


class IndexJobs:
    """The jobs of one database. Whatever goes wrong is raised: PythiaError, psycopg.Error, OSError.

    `begin` does what takes long and changes nothing; what it returns publishes the outcome, over whatever refreshes have
    happened meanwhile.
    """

    def __init__(self, store: IndexStore, shared: Shared) -> None:
        self._store = store
        self._files = shared.files
        self._versions = shared.versions
        self._memory = shared.memory
        self._settings = shared.settings

    def admit(self, index: StoredIndex) -> bool:
        """Tell whether an index has its share of the memory; what has changed about that is noted in its row."""
        here = index.token is not None and self._files.has_version(str(index.token))
        size = index.facts.get("bytes", 0) if here else 0
        refusal = self._memory.judge(self._key(index), str(index.token), size, index.table)
        if refusal is not None and index.status == "VALID":
            self._store.suspend(index, str(refusal), refusal.sqlstate)
        elif refusal is None and index.status == "UNUSABLE" and index.token is not None:
            self._store.resume(index)
        return refusal is None

    def long_job(self, index: StoredIndex, has_new_queries: Callable[[], bool]) -> str | None:
        """Return the long job that an index needs most; `has_new_queries`: whether queries of users were captured since it was asked."""
        if index.status == "FAILED" or index.lacks_its_table:
            return None
        # Files may be gone though they are open here: a worker found them damaged, or somebody deleted them.
        here = index.token is not None and self._files.has_version(str(index.token))
        learns_dimensions = index.dimensions is None and index.changed
        if index.status == "BUILDING" or not (here and index.current) or learns_dimensions:
            return "build"
        try:
            newest = self._newest(index)
        except (CorruptedIndex, FileNotFoundError):
            self._files.remove_version(str(index.token))
            return "build"
        if plan_merge(newest):
            return "merge"
        if is_measured_badly(index) or (
            has_rested(index, self._settings) and has_new_queries() and self._has_new_sample(index)
        ):
            return "measure"
        return None

    def needs_refresh(self, index: StoredIndex) -> bool:
        """Tell whether the journal holds something that the newest version does not."""
        follows = index.changed and index.current and index.dimensions is not None
        return follows and self._files.has_version(str(index.token))

    def begin(self, name: str, index: StoredIndex) -> Finish:
        """Run a long job up to its outcome."""
        return {"build": self._build, "merge": self._merge, "measure": self._measure}[name](index)

    def note_failure(self, job: str, index: StoredIndex, error: Exception) -> None:
        """Keep an error for whoever waits for a build, or looks at the index; damaged files are made anew."""
        if isinstance(error, CorruptedIndex) and index.token is not None:
            self._files.remove_version(str(index.token))
        elif job == "build" and (
            index.status == "BUILDING" or index.token is None or isinstance(error, OutOfMemory)
        ):
            self._store.fail(index, _reason(error), getattr(error, "sqlstate", None))
        else:
            self._store.note_error(index, job, _reason(error))

    def refresh(self, index: StoredIndex, *, prune: bool) -> None:
        """Take what the journal holds into a new version, as a flat segment beside the others: a large one gets its structure later.

        While a build reads an older snapshot, the journal must not be pruned.
        """
        previous = self._newest(index)
        with self._store.snapshot(index) as snapshot:
            changed = snapshot.changed_keys(previous.number)
            folder = self._files.new_segment()
            organization = previous.definition.organization
            self._write_segment(index, organization, folder, snapshot.rows_of(changed), kind="flat")
        segments, deleted = refreshed(previous, changed, folder.name if folder.exists() else None)
        facts = {"changes": changes(index) + len(changed)}
        self._publish(
            index, replace(previous.manifest, segments=segments), deleted, snapshot, facts, prune=prune
        )

    def _build(self, index: StoredIndex) -> Finish:
        """Build an index from one snapshot of its table."""
        started = time.perf_counter()
        progress = BuildProgress(self._store, index)
        self._store.prepare_build(index)
        with self._store.snapshot(index) as snapshot:
            planned, outcome = self._plan(index, snapshot, progress)
            folders = [self._files.new_segment(), self._files.new_segment()]
            held = HeldBack(snapshot.batches(), planned.hold_back_every)
            organization = planned.definition.organization
            others = counted(held.others(), planned.rows, progress)
            definition = self._write_segment(index, organization, folders[0], others, progress=progress)
            self._write_segment(index, organization, folders[1], held.rows)
        parts = [
            Part(open_segment(folder, definition, verify=False), None)
            for folder in folders
            if folder.exists()
        ]
        first = Manifest(0, "", definition, [entry(part.segment) for part in parts])
        seconds = time.perf_counter() - started
        version = IndexVersion(first, parts, self._files.segments)
        report = partial(progress, "measuring accuracy")
        manifest = replace(first, curve=self._first_curve(index, version, report))
        facts = {
            "built_seconds": round(seconds, 3),
            "changes": version.rows,
            "builds": index.facts.get("builds", 0) + 1,
            "organization": ORGANIZATION_NAMES[organization],
            "race": None if outcome is None else outcome.facts,
        }

        def finish(now: StoredIndex) -> None:
            if now.asked == index.asked:  # else it is built once more, as it was asked for meanwhile
                self._publish(now, manifest, {}, snapshot, facts)

        return finish

    def _plan(
        self, index: StoredIndex, snapshot: Snapshot, progress: BuildProgress
    ) -> tuple[Candidate, Outcome | None]:
        """Count rows, choose the organization where that is left open, and set memory apart. Raises OutOfMemory."""
        rows = snapshot.count()
        sample = snapshot.sample(SAMPLE_ROWS, rows)
        dimensions = sample[0].dimensions if sample else index.dimensions or 1
        usual = ORGANIZATIONS[index.organization or "NEIGHBOR PARTITIONS"]
        candidate = Candidate(index, _definition(index, dimensions, usual), rows, sample)
        self._reserve(candidate)
        outcome = None
        if candidate.is_open:
            with suppress(OutOfMemory):  # then there is room for partitions only
                self._reserve(candidate.of("graph"))
                outcome = run_race(
                    candidate, snapshot, self._files, threads=self._threads(index), progress=progress
                )
        if outcome is not None:
            candidate = candidate.of(outcome.winner)
        self._reserve(candidate)
        return candidate, outcome

    def _reserve(self, candidate: Candidate) -> None:
        index, needed = candidate.index, candidate.estimate()
        answers = index.current and not self._memory.refuses(self._key(index))
        kept = index.facts.get("bytes", 0) if answers else 0
        self._memory.reserve(self._key(index), needed.total, needed.building, kept, index.table)

    def _threads(self, index: StoredIndex) -> int:
        """Return how many threads build an index: those that PARALLEL asks for, while there are cores, else the engine's own number."""
        asked = min(index.parallel, len(os.sched_getaffinity(0)))
        return asked if index.parallel > 1 else self._settings.threads

    def _key(self, index: StoredIndex) -> Key:
        return self._store.dbname, index.index_id

    def _merge(self, index: StoredIndex) -> Finish:
        """Make one segment out of several."""
        previous = self._newest(index)
        names = plan_merge(previous) or []
        folder = self._files.new_segment()
        merge_segments(previous, names, folder, threads=self._settings.threads)
        fresh = Part(open_segment(folder, previous.definition, verify=False), None)
        others = [part for part in previous.parts if part.segment.name not in names]
        version = IndexVersion(previous.manifest, [fresh, *others], self._files.segments)
        restructured = is_restructured(version, fresh)
        curve = self._first_curve(index, version) if restructured else None

        def finish(now: StoredIndex) -> None:
            if now.token is None:  # its versions were taken away meanwhile
                return
            newest = self._newest(now)
            segments, deleted = merged(newest, previous, names, folder.name)
            manifest = replace(newest.manifest, segments=segments, curve=curve or newest.manifest.curve)
            self._publish(now, manifest, deleted, None, {"changes": version.rows} if restructured else {})

        return finish

    def _measure(self, index: StoredIndex) -> Finish:
        """Measure what accuracy each effort reaches."""
        facts: dict[str, Any] = {"measured_at": time.time()}
        version = self._newest(index)
        captured = self._captured(index, version)
        measured = measure_version(version, captured, self._settings.index_measure_seconds)
        facts["measured_rows"] = version.rows

        def finish(now: StoredIndex) -> None:
            if now.token is None:  # as above
                return
            facts["changes"] = changes(now) - changes(index)  # those of the meantime were not measured
            newest = self._newest(now)
            deleted = {part.segment.name: part.dead for part in newest.parts}
            curve = measured.curve.to_json() if measured else newest.manifest.curve
            published = self._publish(now, replace(newest.manifest, curve=curve), deleted, None, facts)
            if measured and published:
                self._store.store_accuracy(now, measured.rows)

        return finish

    def _has_new_sample(self, index: StoredIndex) -> bool:
        """Tell whether half of the users' queries that were captured came after the last measurement."""
        queries = query_store(self._store, self._settings)
        since = index.facts.get("measured_at", 0)
        return can_be_measured(index) and queries.is_new(index.index_id, since, FEWEST_CAPTURED)

    def _newest(self, index: StoredIndex) -> IndexVersion:
        return self._versions.open(str(index.token))

    def _write_segment(
        self,
        index: StoredIndex,
        organization: str,
        folder: Path,
        batches: Iterable[Batch],
        *,
        progress: BuildProgress | None = None,
        kind: str = "auto",
    ) -> Definition:
        """Write the rows of a snapshot into a segment; none is written when there are no rows."""
        definition = _definition(index, index.dimensions or 1, organization)
        builder: Builder | None = None
        try:
            for batch in batches:
                if builder is None:
                    definition = _definition(index, batch.dimensions, organization)
                    builder = Builder(folder, definition, threads=self._threads(index), progress=progress)
                builder.add(batch.keys, batch.vectors, batch.columns)
            if builder is not None:
                builder.finish(kind)
        finally:
            if builder is not None:
                builder.discard()
        return definition

    def _first_curve(
        self, index: StoredIndex, version: IndexVersion, report: Report | None = None
    ) -> dict[str, Any] | None:
        curve = first_curve(version, self._captured(index, version), report)
        return None if curve is None else curve.to_json()

    def _captured(self, index: StoredIndex, version: IndexVersion) -> list[str]:
        """Return users' queries as text, in an order by chance."""
        return query_store(self._store, self._settings).vectors(index.index_id, version.definition.dimensions)

    def _publish(
        self, index: StoredIndex, manifest: Manifest, deleted: Deleted, snapshot: Snapshot | None,
        facts: dict[str, Any], *, prune: bool = True,
    ) -> bool:  # fmt: skip
        """Write a version's files, then commit its row; without a snapshot, that of the version before still holds.

        Returns False if the index is not what it was made for any more; the files are removed in time.
        """
        manifest = replace(manifest, number=index.version + 1, token=str(uuid4()))
        write_version(self._files.versions, manifest, deleted)
        opened = self._versions.open(manifest.token)
        segments = [
            {**segment, "bytes": part.segment.bytes, "dead": len(part.dead), "facts": part.segment.facts}
            for segment, part in zip(manifest.segments, opened.parts, strict=True)
        ]
        version = NewVersion(
            manifest.number, manifest.token, opened.rows, manifest.definition.dimensions, "built_seconds" in facts,
            index.facts | facts | {"segments": segments, "bytes": opened.bytes},
        )  # fmt: skip
        published = self._store.publish(index, version, snapshot, prune=prune)
        if published:
            self._memory.keep(self._key(index), opened.bytes)
        return published


def _reason(error: Exception) -> str:
    """Return what went wrong, for people."""
    if isinstance(error, OSError):
        return f"the files of the index could not be written: {error.strerror or error}"
    return str(error) if isinstance(error, PythiaError | psycopg.Error) else repr(error)


def _definition(index: StoredIndex, dimensions: int, organization: str) -> Definition:
    return Definition(
        index.index_id, index.vector_type, dimensions, index.distance,
        "text" if index.key_type == "numeric" else index.key_type,
        organization, index.target_accuracy, index.parameters,
        tuple(Column(*column) for column in index.columns),
    )  # fmt: skip
