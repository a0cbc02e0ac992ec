"""From one version to the next: which rows die, which segments are merged, and merging."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from pythiadb.index.builder import FLAT_BELOW, Builder
from pythiadb.index.keys import KeyList, Positions
from pythiadb.index.library import Progress
from pythiadb.index.segment import Segment, open_segment
from pythiadb.index.version import IndexVersion, Part

_SAME_SIZE = 4  # segments whose alive rows differ less than so many times are merged together
_MOST_OF_A_SIZE = 4
_MOST_DEAD = 0.25  # share of a segment's rows
_MOST_BESIDE = 0.5  # rows of the other segments over those of the largest
_CHUNK_BYTES = 32 << 20


def refreshed(
    previous: IndexVersion, changed: KeyList, fresh: str | None
) -> tuple[list[dict[str, Any]], dict[str, Positions]]:
    """Return segments and dead rows of the version after a change, for write_version().

    `changed` are the keys of all rows that were inserted, changed or deleted since; `fresh` names the new segment with the state of
    those that still exist, None where none does. Segments without a row alive are left out. Raises CorruptedIndex for the fresh one.
    """
    segments: list[dict[str, Any]] = []
    deleted: dict[str, Positions] = {}
    located = previous.positions(changed)
    for part in previous.parts:
        rows = located[part.segment.name]
        dead = np.union1d(part.dead, rows[rows >= 0])
        if len(dead) < part.segment.rows:
            segments.append(entry(part.segment))
            if len(dead):
                deleted[part.segment.name] = dead
    if fresh is not None:
        segment = open_segment(previous.segments_folder / fresh, previous.definition, verify=False)
        if segment.rows:
            segments.append(entry(segment))
    return segments, deleted


def merged(
    newest: IndexVersion, before: IndexVersion, names: list[str], new: str
) -> tuple[list[dict[str, Any]], dict[str, Positions]]:
    """Return segments and dead rows of a version in which one segment takes the place of some, for write_version().

    The new one holds the rows that were alive in those of `before`; what has died since is dead in it too.
    """
    segments = [entry(part.segment) for part in newest.parts if part.segment.name not in names]
    deleted = {
        part.segment.name: part.dead
        for part in newest.parts
        if part.segment.name not in names and len(part.dead)
    }
    segment = open_segment(newest.segments_folder / new, newest.definition, verify=False)
    dead = _died_since(newest, before, names, segment)
    if len(dead) < segment.rows:
        segments.insert(0, entry(segment))
        if len(dead):
            deleted[new] = dead
    return segments, deleted


def _died_since(newest: IndexVersion, before: IndexVersion, names: list[str], merged: Segment) -> Positions:
    """Return which rows of a merged segment have died since it was begun."""
    now = {part.segment.name: part for part in newest.parts}
    dead = [np.zeros(0, np.int64)]
    for part in before.parts:
        name = part.segment.name
        if name not in names:
            continue
        gone = now[name].dead if name in now else np.arange(part.segment.rows)
        died = np.setdiff1d(gone, part.dead)
        if len(died):
            dead.append(merged.keys.find(part.segment.keys.take(died)))
    return np.unique(np.concatenate(dead))


def entry(segment: Segment) -> dict[str, Any]:
    """Return what a version's manifest says of a segment."""
    return {"name": segment.name, "kind": segment.kind, "rows": segment.rows}


def plan_merge(version: IndexVersion) -> list[str] | None:
    """Return the segments that should become one now, None where all is well.

    Small ones are merged when there are four of about one size. All are merged into the largest when together they have half as many
    rows, so that its structure is learned anew. Flat ones that are large, of many changes at once, get a structure; and a segment
    is written anew when a quarter of its rows is dead.
    """
    parts = sorted(version.parts, key=lambda part: part.rows, reverse=True)
    if not parts:
        return None
    beside = sum(part.rows for part in parts[1:])
    if beside > _MOST_BESIDE * parts[0].rows and (len(parts) > 2 or _is_large(parts[0])):
        return [part.segment.name for part in parts]
    if version.definition.dense and (large := [part for part in parts if _lacks_structure(part)]):
        return [part.segment.name for part in large]
    for place, part in enumerate(parts):
        if len(part.dead) > _MOST_DEAD * part.segment.rows and _is_large(part):
            return [other.segment.name for other in parts[place:]]
    return _same_size(parts)


def merge_segments(
    version: IndexVersion,
    names: list[str],
    folder: Path,
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> None:
    """Write the rows that are alive in some segments into one new segment, from their mapped files. Raises OSError."""
    with Builder(folder, version.definition, threads=threads, progress=progress) as builder:
        for part in version.parts:
            if part.segment.name in names:
                for positions in _chunks(part):
                    segment = part.segment
                    builder.add(
                        segment.keys.take(positions),
                        segment.store.take(positions),
                        segment.filters.columns.take(positions),
                    )
        builder.finish()


def _is_large(part: Part) -> bool:
    return part.segment.kind != "flat"


def _lacks_structure(part: Part) -> bool:
    return part.segment.kind == "flat" and part.rows >= FLAT_BELOW


def _same_size(parts: list[Part]) -> list[str] | None:
    tiers = defaultdict(list)
    for part in parts:
        tiers[int(np.log(max(part.rows, 64)) / np.log(_SAME_SIZE))].append(part.segment.name)
    # The smallest first: merging them may already make the others' number right.
    crowded = [names for _, names in sorted(tiers.items()) if len(names) >= _MOST_OF_A_SIZE]
    return crowded[0] if crowded else None


def _chunks(part: Part) -> list[Positions]:
    alive = np.arange(part.segment.rows) if part.alive is None else part.alive.positions
    width = max(1, part.segment.bytes // max(part.segment.rows, 1))
    step = max(1, _CHUNK_BYTES // width)
    return [alive[start : start + step] for start in range(0, len(alive), step)]
