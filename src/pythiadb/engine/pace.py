"""How long a model has needed lately, by the size of its input."""

from __future__ import annotations

MEMORY = 0.2  # weight of the newest run
KNOWN = 3  # runs before a pace counts


class Pace:
    """Running means of the seconds of runs, for costs of about the same size (a power of two)."""

    def __init__(self) -> None:
        self._means: dict[int, tuple[int, float]] = {}

    def note(self, cost: int, seconds: float) -> None:
        """Take in one run."""
        count, mean = self._means.get(cost.bit_length(), (0, seconds))
        self._means[cost.bit_length()] = (count + 1, mean + MEMORY * (seconds - mean))

    def expected(self, cost: int) -> float | None:
        """Return the seconds that a run will take, or None when too little is known."""
        count, mean = self._means.get(cost.bit_length(), (0, 0.0))
        return mean if count >= KNOWN else None

    def is_quick(self, seconds: float) -> bool:
        """Tell whether there is an input of some size that takes no longer; cheap."""
        return any(count >= KNOWN and mean <= seconds for count, mean in self._means.values())
