"""How much a search may look at: the parameters behind an accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

_MOST = 1 << 30


@dataclass(frozen=True, slots=True)
class Effort:
    """Parameters of one search; each segment takes those of its kind.

    `probes`: partitions that are scanned. `candidates`: rows whose exact distance is computed afterwards. `ef`: length of the
    list that a search in a graph keeps. Never below k in effect.
    """

    probes: int
    candidates: int
    ef: int

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, int], k: int) -> Effort:
        """Return the effort that a statement asks for by {"efsearch": n} or {"probes": n}."""
        wide = candidates_for(95, k)
        probes = min(int(parameters.get("probes", 32)), _MOST)
        ef = min(int(parameters.get("efsearch", 64)), _MOST)
        # Who asks for many partitions wants accuracy: rescoring must not be what limits it.
        return cls(max(probes, 1), max(wide, min(6 * probes, 100 * k)), max(ef, k))

    @classmethod
    def usual(cls, accuracy: int, k: int) -> Effort:
        """Return what reaches an accuracy on ordinary data; for indexes where nothing was measured."""
        if accuracy >= 100:
            return cls.exact()
        probes = next(probes for limit, probes in _USUAL_PROBES if accuracy <= limit)
        ef = next(ef for limit, ef in _USUAL_EF if accuracy <= limit)
        growth = max(1.0, (k / 10) ** 0.5)
        return cls(int(probes * growth), candidates_for(accuracy, k), max(int(ef * growth), k + k // 2))

    @classmethod
    def exact(cls) -> Effort:
        """Return the effort that looks at every row."""
        return cls(_MOST, _MOST, _MOST)

    @property
    def exhaustive(self) -> bool:
        """Whether every row is looked at."""
        return self.candidates >= _MOST

    def more(self, factor: int = 4) -> Effort:
        """Return a greater effort, for searches that found too little."""
        return Effort(*(min(value * factor, _MOST) for value in (self.probes, self.candidates, self.ef)))

    def at_least(self, k: int) -> Effort:
        """Return an effort under which k rows can come back."""
        if self.candidates >= k and self.ef >= k:
            return self
        return replace(self, candidates=max(self.candidates, k), ef=max(self.ef, k))

    def to_json(self) -> dict[str, int]:
        """Return the effort as JSON values."""
        return {"probes": self.probes, "candidates": self.candidates, "ef": self.ef}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Effort:
        """Read what to_json() gave."""
        return cls(int(data["probes"]), int(data["candidates"]), int(data["ef"]))


_USUAL_PROBES = ((80, 8), (90, 16), (95, 32), (97, 56), (98, 80), (99, 128), (100, 256))
_USUAL_EF = ((80, 32), (90, 64), (95, 120), (97, 180), (98, 250), (99, 400), (100, 800))


def candidates_for(accuracy: int, k: int) -> int:
    """Return how many rows to rescore: compressed codes rank the true k nearest within some multiple of k."""
    multiple = 10 if accuracy <= 90 else 20 if accuracy <= 95 else 40
    return min(multiple * k, 3 * k + 400)
