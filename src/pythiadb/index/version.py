"""An index at one snapshot: segments and the rows of theirs that are dead. What it answers are keys of rows alive then.

A version is never changed; the next one shares its segments.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import orjson

from pythiadb.errors import CorruptedIndex, UnsupportedPredicate
from pythiadb.index.curve import Curve
from pythiadb.index.distances import Floats
from pythiadb.index.effort import Effort
from pythiadb.index.keys import KeyList, Positions
from pythiadb.index.manifest import Manifest, read_version
from pythiadb.index.segment import Hits, Segment, open_segment
from pythiadb.index.selection import Selection
from pythiadb.index.store import Query
from pythiadb.index.stores import prepare

Selections: TypeAlias = "list[Selection | None]"

_ATTEMPTS = 3  # searches with growing effort before all rows are looked at
_KEPT_FILTERS = 8
_KEPT_BYTES = 64 << 20
_KEPT_EFFORTS = 1000  # by accuracy and k, which statements mostly have as constants


class Found(NamedTuple):
    """Keys as PostgreSQL writes them, nearest first, their distances, and how they were found."""

    keys: list[str]
    distances: Floats
    facts: dict[str, Any]


@dataclass(slots=True)
class Part:
    """A segment of a version; `alive` is None where no row is dead."""

    segment: Segment
    alive: Selection | None
    dead: Positions = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def rows(self) -> int:
        """Rows that are alive."""
        return self.segment.rows - len(self.dead)


def open_version(
    folder: Path, segments: Path, *, verify: bool, others: Sequence[IndexVersion] = ()
) -> IndexVersion:
    """Open the version in `folder` with the segments it names. Raises CorruptedIndex.

    `verify` reads every byte of files that are not open yet: segments that one of `others` holds too are shared with it.
    """
    manifest, deleted = read_version(folder, verify=verify)
    held = {part.segment.name: part.segment for other in others for part in other.parts}
    parts = []
    for entry in manifest.segments:
        name = entry["name"]
        segment = held.get(name) or open_segment(segments / name, manifest.definition, verify=verify)
        dead = deleted.get(name)
        if dead is None:
            parts.append(Part(segment, None))
        elif len(dead) and not 0 <= dead[0] <= dead[-1] < segment.rows:
            raise CorruptedIndex(f'an index version deletes rows that segment "{name}" does not have')
        else:
            parts.append(Part(segment, Selection.without(segment.rows, dead), dead))
    return IndexVersion(manifest, parts, segments)


class IndexVersion:
    """An open version. Searches may run in several threads at once."""

    def __init__(self, manifest: Manifest, parts: list[Part], segments_folder: Path) -> None:
        self.manifest = manifest
        self.number = manifest.number
        self.token = manifest.token
        self.definition = manifest.definition
        self.segments = manifest.segments
        self.segments_folder = segments_folder
        self.parts = parts
        self.rows = sum(part.rows for part in parts)
        self.bytes = sum(part.segment.bytes for part in parts)
        self._alive: Selections = [part.alive for part in parts]
        self._filters: OrderedDict[bytes, Selections] = OrderedDict()
        self._lock = Lock()
        self._efforts: dict[tuple[int, int, bool], Effort] = {}

    def search(self, query: Any, k: int, effort: Effort) -> Found:
        """Return k rows that are alive, probably the nearest; fewer only where fewer are alive.

        `query`: float32 [d]; for bit uint8 [ceil(d / 8)]; for sparsevec (places from 0, values). Raises InvalidVector.
        """
        return self._search(self._prepared(query), k, effort, self._alive, self.rows)

    def search_many(self, queries: Any, k: int, effort: Effort) -> list[Found]:
        """Search for several queries, [m, d] or a list."""
        prepared = [self._prepared(query) for query in queries]
        if effort.exhaustive:
            return [self._search(query, k, effort, self._alive, self.rows) for query in prepared]
        wanted, least = min(k, self.rows), effort.at_least(k)
        columns = [
            part.segment.search_many(prepared, k, least, alive)
            for part, alive in zip(self.parts, self._alive, strict=True)
        ]
        found = []
        for number, query in enumerate(prepared):
            hits = [column[number] for column in columns]
            if sum(len(hit.positions) for hit in hits) < wanted:
                found.append(self._search(query, k, effort.more(), self._alive, self.rows))
            else:
                found.append(self._found(hits, k, {"effort": least.to_json(), "attempts": 1}))
        return found

    def exact(self, query: Any, k: int) -> Found:
        """Return the k nearest rows that are alive, looking at all.

        A few more rows come back where rounding does not tell which distance is the k-th smallest.
        """
        prepared = self._prepared(query)
        hits = [
            part.segment.exact(prepared, k, alive, ties=True)
            for part, alive in zip(self.parts, self._alive, strict=True)
        ]
        rounding = max(
            (part.segment.store.rounding(prepared, _limit(hits, k)) for part in self.parts), default=0.0
        )
        return self._found(hits, k, {"exact": True, "rows": self.rows}, rounding)

    def exact_many(self, queries: Any, k: int) -> list[Found]:
        """Return the k nearest rows that are alive for several queries, [m, d] or a list, looking at all."""
        prepared = [self._prepared(query) for query in queries]
        columns = [
            part.segment.exact_many(prepared, k, alive)
            for part, alive in zip(self.parts, self._alive, strict=True)
        ]
        return [
            self._found([column[number] for column in columns], k, {"exact": True})
            for number in range(len(prepared))
        ]

    def passing(self, predicate: list[Any]) -> int:
        """Count the rows that are alive and fulfil a predicate over included columns. Raises UnsupportedPredicate."""
        return sum(selection.count for selection in self._selections(predicate) if selection)

    def filtered(self, query: Any, k: int, effort: Effort, predicate: list[Any]) -> Found:
        """Return k rows that are alive and fulfil a predicate over included columns; see filters.py. Raises UnsupportedPredicate.

        Few rows are all looked at; among many the index is searched with the others masked. `facts` say which.
        """
        prepared = self._prepared(query)
        selections = self._selections(predicate)
        passing = sum(selection.count for selection in selections if selection)
        if self._exact_is_cheaper(effort.at_least(k), selections):
            found = self._exact(prepared, k, selections, {"exact": True})
        else:
            found = self._search(prepared, k, effort, selections, passing)
        found.facts["passing"] = passing
        return found

    def among(self, query: Any, k: int, keys: KeyList) -> Found:
        """Return the k nearest of the rows with these keys that are alive, exactly."""
        prepared = self._prepared(query)
        hits, rows = [], 0
        for part, found in zip(self.parts, self.positions(keys).values(), strict=True):
            positions = np.unique(found[found >= 0])
            rows += len(positions)
            hits.append(part.segment.at(prepared, positions, k))
        return self._found(hits, k, {"exact": True, "rows": rows})

    def positions(self, keys: KeyList) -> dict[str, Positions]:
        """Return for each segment, by name, the row of every key, -1 where it has none alive."""
        located = {}
        for part in self.parts:
            rows = part.segment.keys.find(keys)
            if part.alive is not None:
                rows[(rows >= 0) & ~part.alive.mask[rows]] = -1
            located[part.segment.name] = rows
        return located

    def effort_for(self, accuracy: int, k: int, filtered: bool = False) -> Effort:
        """Return the effort that reaches an accuracy: as measured where it was, else what usually does."""
        wanted = accuracy, k, filtered
        chosen = self._efforts.get(wanted)  # to work it out takes as long as a fourth of a search
        if chosen is None:
            if len(self._efforts) >= _KEPT_EFFORTS:
                self._efforts.clear()
            chosen = self._efforts[wanted] = self._effort_for(*wanted)
        return chosen

    @cached_property
    def _curve(self) -> Curve | None:
        return None if self.manifest.curve is None else Curve.from_json(self.manifest.curve)

    def _effort_for(self, accuracy: int, k: int, filtered: bool) -> Effort:
        if self._curve is None:
            return Effort.usual(accuracy, k)
        return self._curve.effort(accuracy, k, filtered=filtered)

    def _prepared(self, query: Any) -> Query:
        """Return a query as segments take it. Without rows nothing tells which dimensions it should have. Raises InvalidVector."""
        return prepare(self.definition, query) if self.parts else query

    def _search(self, query: Query, k: int, effort: Effort, selections: Selections, available: int) -> Found:
        if effort.exhaustive:
            return self._exact(query, k, selections, {"exact": True})
        wanted = min(k, available)
        effort = effort.at_least(k)
        for attempt in range(1, _ATTEMPTS + 1):
            hits = [
                part.segment.search(query, k, effort, selection)
                for part, selection in zip(self.parts, selections, strict=True)
            ]
            if sum(len(hit.positions) for hit in hits) >= wanted:
                return self._found(hits, k, {"effort": effort.to_json(), "attempts": attempt})
            effort = effort.more()
        return self._exact(query, k, selections, {"exact": True, "attempts": _ATTEMPTS + 1})

    def _exact(self, query: Query, k: int, selections: Selections, facts: dict[str, Any]) -> Found:
        hits = [
            part.segment.exact(query, k, selection)
            for part, selection in zip(self.parts, selections, strict=True)
        ]
        return self._found(hits, k, facts)

    def _found(self, hits: list[Hits], k: int, facts: dict[str, Any], rounding: float | None = None) -> Found:
        """Merge the hits of all segments; with `rounding`, keep also what is that close to the k-th."""
        if len(hits) == 1:
            (only,) = hits
            return Found(self.parts[0].segment.keys.texts(only.positions), only.distances, facts)
        if not hits:
            return Found([], np.zeros(0, np.float32), facts)
        distances = np.concatenate([hit.distances for hit in hits])
        order = np.argsort(distances, kind="stable")
        kept = k
        if rounding is not None and k <= len(order) and np.isfinite(limit := distances[order[k - 1]]):
            kept = int(np.searchsorted(distances[order], limit + rounding, side="right"))
        order = order[:kept]
        return Found(self._keys_of(hits, order), distances[order], facts)

    def _keys_of(self, hits: list[Hits], order: Positions) -> list[str]:
        """Return the keys of chosen hits; `order` counts through the hits of all segments."""
        keys: list[str] = [""] * len(order)
        start = 0
        for part, hit in zip(self.parts, hits, strict=True):
            mine = np.flatnonzero((order >= start) & (order < start + len(hit.positions)))
            texts = part.segment.keys.texts(hit.positions[order[mine] - start])
            for place, text in zip(mine.tolist(), texts, strict=True):
                keys[place] = text
            start += len(hit.positions)
        return keys

    def _selections(self, predicate: list[Any]) -> Selections:
        """Return the rows of each segment that are alive and fulfil a predicate; those of the last predicates are kept."""
        try:
            key = orjson.dumps(predicate)
        except orjson.JSONEncodeError as error:
            raise UnsupportedPredicate("not a predicate over included columns", detail=f"{error}.") from None
        with self._lock:
            if key in self._filters:
                self._filters.move_to_end(key)
                return self._filters[key]
        made: Selections = []
        for part in self.parts:
            mask = part.segment.filters.mask(predicate)
            made.append(Selection(mask) if part.alive is None else part.alive.narrowed(mask))
        with self._lock:
            self._filters[key] = made
            while len(self._filters) > max(1, min(_KEPT_FILTERS, _KEPT_BYTES // max(self.rows, 1))):
                self._filters.popitem(last=False)
        return made

    def _exact_is_cheaper(self, effort: Effort, selections: Selections) -> bool:
        pairs = [(part.segment, each) for part, each in zip(self.parts, selections, strict=True) if each]
        exact = sum(segment.exact_cost(selection) for segment, selection in pairs)
        return exact <= sum(segment.cost(effort, selection) for segment, selection in pairs)


def _limit(hits: list[Hits], k: int) -> float:
    distances = np.sort(np.concatenate([hit.distances for hit in hits]))
    return float(distances[min(k, len(distances)) - 1]) if len(distances) else 0.0
