"""What a worker knows of packages that have crashed the engine, or may have; see engine/blame.py."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping

from pythiadb.errors import EngineFault


class Quarantine:
    """Packages that are refused until a time, and suspects."""

    def __init__(self, seconds: int, refused: Mapping[str, float], suspects: Iterable[str]) -> None:
        """Start with `refused` (seconds left by package) and `suspects`; `seconds` is for those that follow."""
        self._seconds = seconds
        self._until = {key: time.monotonic() + left for key, left in refused.items()}
        self._suspects = set(suspects)
        self.trials: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # one at a time for a package

    def concerns(self, key: str) -> bool:
        """Tell whether a package needs a closer look; cheap."""
        return bool(self._until or self._suspects) and (key in self._until or key in self._suspects)

    def is_suspect(self, key: str) -> bool:
        return key in self._suspects

    def clear(self, key: str) -> None:
        """A suspect has survived."""
        self._suspects.discard(key)

    def refuse(self, key: str, seconds: float | None = None) -> None:
        """Refuse a package from now on, for a while."""
        self._suspects.discard(key)
        self._until[key] = time.monotonic() + (self._seconds if seconds is None else seconds)

    def check(self, key: str) -> None:
        """Raise EngineFault for a package that is refused."""
        left = self._until.get(key, 0.0) - time.monotonic()
        if left <= 0:
            self._until.pop(key, None)
            return
        raise EngineFault(
            f'model "{key[:12]}" crashed the engine',
            detail=f"Its calls are refused for another {left:.0f} s (engine setting quarantine_seconds).",
            hint="Drop the model, or run pythia engine restart to try it again. "
            f"Its name: SELECT relation FROM pythia.model WHERE package LIKE '{key[:12]}%';",
        )
