"""Which efforts are tried when accuracy is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from itertools import pairwise

from pythiadb.index.curve import Measured, frontier
from pythiadb.index.effort import Effort
from pythiadb.index.masked import Masked
from pythiadb.index.partitions import PartitionsSegment
from pythiadb.index.version import IndexVersion

LOWEST = 0.6  # mean recall; nobody asks for less
PROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)
_FACTORS = (0.5, 1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # candidates by k, beside a few
_FEWEST_CANDIDATES = 10
_MOST_CANDIDATES = 4096
_EFS = (2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536)  # beyond k


def all_efforts(version: IndexVersion | Masked, k: int) -> list[Effort]:
    """Return efforts over all that may be sensible at a k."""
    if version.definition.organization == "graph":
        return [Effort(1, 1, round(k * 1.05) + ef) for ef in _EFS]
    return [
        Effort(probes, candidates, 1)
        for candidates in candidate_counts(k)
        for probes in probe_counts(version)
    ]


def probe_counts(version: IndexVersion | Masked) -> list[int]:
    """Return numbers of partitions to look into."""
    most = max(
        part.segment.index.partitions for part in version.parts if isinstance(part.segment, PartitionsSegment)
    )
    return sorted({min(each, most) for each in PROBES})


def candidate_counts(k: int) -> list[int]:
    """Return numbers of candidates to rescore."""
    wanted = [round(k * factor) + _FEWEST_CANDIDATES for factor in _FACTORS]
    return [each for each in wanted if each <= _MOST_CANDIDATES]


def worth_measuring(coarse: Sequence[Measured]) -> list[Effort]:
    """Return the efforts that were best, and what lies between neighbours among them."""
    best = [point for point in frontier(coarse) if point.recall.mean >= LOWEST]
    chosen = dict.fromkeys(point.effort for point in best)
    for low, high in pairwise(best):
        chosen[_middle(low.effort, high.effort)] = None
    if best:  # the few queries of the coarse sweep may all have been lucky
        chosen |= dict.fromkeys(best[-1].effort.more(factor) for factor in (2, 4))
    return list(chosen) or [point.effort for point in coarse]


def _middle(low: Effort, high: Effort) -> Effort:
    return Effort(*(round((a * b) ** 0.5) for a, b in zip(astuple(low), astuple(high), strict=True)))
