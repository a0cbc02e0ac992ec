"""Writing a segment: rows stream into files as they come, structures are made over the mapped files, then all appears at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from pythiadb.errors import InvalidParameter
from pythiadb.index import container
from pythiadb.index.column_writer import ColumnsWriter
from pythiadb.index.columns import Coded
from pythiadb.index.definition import Definition
from pythiadb.index.keys import KeyList, KeyWriter
from pythiadb.index.library import Progress
from pythiadb.index.stores import store_writer

FLAT_BELOW = 4096  # rows; looking at all of them costs less than a structure
KINDS = frozenset({"auto", "flat", "graph", "partitions"})


class Builder:
    """Writer of one new segment folder. Nothing is seen under its name before finish() has returned.

    Use as a context manager, or call discard() when something fails: it removes what was written.
    """

    def __init__(
        self, folder: Path, definition: Definition, *, threads: int = 1, progress: Progress | None = None
    ) -> None:
        self.definition = definition
        self.threads = threads
        self.progress = progress or _silent
        self.rows = 0
        self._folder = container.NewFolder(folder)
        self._keys = KeyWriter(self._folder.path, definition.key_type)
        self._vectors = store_writer(self._folder.path, definition)
        self._columns = ColumnsWriter(definition.column_types)

    def add(
        self, keys: KeyList, vectors: Any, columns: Mapping[str, Sequence[Any] | Coded] | None = None
    ) -> None:
        """Append rows with distinct keys and vectors that are not NULL.

        `vectors`: float32 [n, d]; for bit uint8 [n, ceil(d / 8)] in PostgreSQL's order of bits; for sparsevec a list of (places from
        0, values). `columns`: values of every included column by name. Raises InvalidVector for wrong dimensions and ValueError for
        unequal lengths; the builder is of no use then.
        """
        counts = {self._keys.add(keys), self._vectors.add(vectors)}
        if columns:
            self._columns.add(columns)
            counts.add(self._columns.rows - self.rows)
        if len(counts) > 1 or (self.definition.columns and not columns and counts != {0}):
            raise ValueError(f"keys, vectors and columns of a segment differ in length: {sorted(counts)}")
        self.rows += counts.pop()

    def finish(self, kind: str = "auto") -> None:
        """Make the structure and publish the folder; `auto` takes the definition's from 4,096 rows on. Raises OSError."""
        if kind not in KINDS:
            raise InvalidParameter(f'a segment cannot be of kind "{kind}"')
        self._keys.finish()
        self._vectors.finish()
        self._columns.finish(self._folder.path)
        kind = self._chosen(kind)
        manifest = {
            "kind": kind,
            "rows": self.rows,
            "definition": self.definition.to_json(),
            "facts": self._structure(kind),
        }
        self.progress("writing", 0.0)
        self._folder.publish(manifest)
        self.progress("writing", 1.0)

    def discard(self) -> None:
        """Remove what was written."""
        for writer in (self._keys, self._vectors):
            with suppress(OSError):  # what is still to be written may find no room
                writer.close()
        self._folder.discard()

    def __enter__(self) -> Builder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()  # after finish() there is nothing left under the folder's first name

    def _chosen(self, kind: str) -> str:
        from pythiadb.index import graph, partitions

        if kind == "auto":
            kind = "flat" if self.rows < FLAT_BELOW else self.definition.organization
        least = {"flat": 0, "graph": graph.LEAST_ROWS, "partitions": partitions.LEAST_ROWS}[kind]
        return kind if self.definition.dense and self.rows >= least else "flat"

    def _structure(self, kind: str) -> dict[str, int]:
        from pythiadb.index import graph, partitions

        if kind == "flat":
            return {}
        build = graph.build if kind == "graph" else partitions.build
        return build(self._folder.path, self.definition, threads=self.threads, progress=self.progress)


def _silent(stage: str, share: float) -> None:
    """Tell nobody."""
