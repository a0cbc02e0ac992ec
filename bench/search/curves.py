"""What settings reach: recall and time of each, and what a wanted recall costs between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.search.clients import Pass
from bench.search.truth import Recall, Truth, judge


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of one way: what it found, and its latencies in ms."""

    setting: str
    recall: Recall
    p50: float
    p95: float


@dataclass(frozen=True)
class Curve:
    """One way with all its settings."""

    name: str
    points: tuple[Point, ...]

    def cost(self, recall: float) -> float | None:
        """Return the p50 in ms at which the mean recall is reached, interpolated; None where it is not reached.

        Between two settings the logarithms of time and of what is missing go in a line. Below the cheapest setting its own cost.
        """
        front = self._front()
        if not front or front[-1].recall.mean < recall:
            return None
        if front[0].recall.mean >= recall:
            return front[0].p50
        for lower, upper in pairwise(front):
            if upper.recall.mean >= recall:
                share = _between(lower.recall.mean, upper.recall.mean, recall)
                return lower.p50 * float((upper.p50 / lower.p50) ** share)
        return None

    def cheapest(self, recall: float) -> Point | None:
        """Return the cheapest setting that reaches the recall."""
        reaching = [point for point in self.points if point.recall.mean >= recall]
        return min(reaching, key=lambda point: point.p50, default=None)

    def _front(self) -> list[Point]:
        """Return the settings that no other one beats, the cheapest first."""
        front: list[Point] = []
        for point in sorted(self.points, key=lambda p: (p.p50, -p.recall.mean)):
            if not front or point.recall.mean > front[-1].recall.mean:
                front.append(point)
        return front


def _between(low: float, high: float, wanted: float) -> float:
    missing = [math.log(max(1 - value, 1e-4)) for value in (low, high, wanted)]
    return (missing[2] - missing[0]) / (missing[1] - missing[0]) if missing[1] != missing[0] else 1.0


def point(setting: str, seen: Pass, truth: Truth) -> Point:
    """Judge what one session saw."""
    return Point(setting, judge(truth, seen.answers), seen.p50, seen.p95)


def curve(name: str, settings: Sequence[str], seen: Sequence[Pass], truth: Truth) -> Curve:
    """Judge what the sessions of all settings of one way saw."""
    return Curve(name, tuple(point(s, p, truth) for s, p in zip(settings, seen, strict=True)))
