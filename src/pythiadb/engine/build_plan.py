"""What is decided before an index is built: whether it fits beside the others, and of which organization it will be."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pythiadb.engine.index_files import IndexFiles
from pythiadb.index.advisor import Contents, Estimate, advise
from pythiadb.index.builder import FLAT_BELOW
from pythiadb.index.definition import Definition
from pythiadb.index.library import Progress
from pythiadb.index.race import Outcome, race, rows_to_race
from pythiadb.postgres.index_snapshot import Batch, Snapshot
from pythiadb.postgres.index_store import StoredIndex

SAMPLE_ROWS = 1_000  # that tell what a row takes
HELD_BACK_ROWS = 500  # that a graph is measured with: its own rows it finds more easily than others
COLUMN_BYTES = 8  # of an included value: a number, or the place of a text in a dictionary


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is to be built: the rows, and a definition whose organization may still be open."""

    index: StoredIndex
    definition: Definition
    rows: int
    sample: Sequence[Batch]

    @property
    def contents(self) -> Contents:
        """What the rows hold, as the memory advisor takes it."""
        definition, sampled = self.definition, sum(len(batch) for batch in self.sample)
        entries = texts = 0
        for batch in self.sample:
            if definition.vector_type == "sparsevec":
                entries += sum(len(values) for _, values in batch.vectors)
            if definition.key_type == "text":
                texts += sum(len(key.encode()) for key in batch.keys)
        return Contents(
            self.rows, definition.dimensions, definition.vector_type, definition.key_type,
            entries=-(-entries // max(sampled, 1)), text_key=-(-texts // max(sampled, 1)),
            column_bytes=COLUMN_BYTES * len(definition.columns),
        )  # fmt: skip

    @property
    def hold_back_every(self) -> int:
        """Return which of how many rows is held back from a graph; 0 where none is."""
        graph = self.definition.organization == "graph" and self.definition.dense
        return max(2, self.rows // HELD_BACK_ROWS) if graph and self.rows > 2 * FLAT_BELOW else 0

    @property
    def is_open(self) -> bool:
        """Tell whether the organization may be chosen, and matters."""
        return self.index.organization is None and self.definition.dense and self.rows >= FLAT_BELOW

    def of(self, organization: str) -> Candidate:
        """Return the same with an organization."""
        return replace(self, definition=replace(self.definition, organization=organization))

    def estimate(self) -> Estimate:
        """Return what the memory advisor says."""
        return advise(self.definition.organization, self.contents, self.definition.parameters)


def run_race(
    candidate: Candidate, snapshot: Snapshot, files: IndexFiles, *, threads: int, progress: Progress
) -> Outcome | None:
    """Race both organizations over a sample of the table; None where too few rows are left of those that were counted."""
    wanted = rows_to_race(candidate.definition.dimensions)
    batches = snapshot.sample(wanted, candidate.rows)
    if sum(len(batch) for batch in batches) < FLAT_BELOW // 2:
        return None
    sample = np.concatenate([batch.vectors for batch in batches])[:wanted]
    folder = files.new_segment()
    try:
        return race(folder, candidate.definition, sample, candidate.rows, threads=threads, progress=progress)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class HeldBack:
    """Rows that a graph is built without: queries to measure it with that it does not know. They become a flat segment."""

    def __init__(self, batches: Iterable[Batch], every: int) -> None:
        self._batches = batches
        self._every = every
        self.rows: list[Batch] = []

    def others(self) -> Iterator[Batch]:
        """Yield all other rows."""
        seen = 0
        for batch in self._batches:
            places = range(seen, seen + len(batch))
            seen += len(batch)
            if not self._every:
                yield batch
                continue
            self.rows.append(batch.take([n for n, place in enumerate(places) if place % self._every == 0]))
            yield batch.take([n for n, place in enumerate(places) if place % self._every])
