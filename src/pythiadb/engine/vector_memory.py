"""The one budget of memory for vector indexes: who has a share of it, and who is refused.

The keeper decides. An index that has its share keeps it and may grow, whatever becomes of it; one that has none yet - a new
one, or any after the budget was changed - gets it where it fits beside the others, the oldest first. The decisions lie in a small
file, which workers read before they open a version and which outlives the engine: a restart changes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from pythiadb.errors import OutOfMemory

Key = tuple[str, int]  # database, index


@dataclass(frozen=True, slots=True)
class Decisions:
    """What was decided under a budget: bytes by index, and by version's token why it may not be opened."""

    budget: int
    shares: dict[Key, int] = field(default_factory=dict)
    refused: dict[str, OutOfMemory] = field(default_factory=dict)

    @property
    def used(self) -> int:
        """Bytes of all shares."""
        return sum(self.shares.values())

    def refusal(self, versions: Sequence[tuple[int, str]]) -> OutOfMemory | None:
        """Return why one of some versions, [number, token], may not be opened."""
        return next((self.refused[token] for _, token in versions if token in self.refused), None)

    def to_json(self) -> dict[str, Any]:
        """Return the decisions as JSON values."""
        return {
            "budget": self.budget,
            "used": self.used,
            "shares": [[*key, size] for key, size in self.shares.items()],
            "refused": {token: [e.message, e.detail, e.hint] for token, e in self.refused.items()},
        }


def read_decisions(path: Path) -> Decisions | None:
    """Return what the keeper decided last, None when there is nothing or nothing whole."""
    try:
        data = orjson.loads(path.read_bytes())
        shares = {(dbname, index_id): size for dbname, index_id, size in data["shares"]}
        refused = {token: OutOfMemory(m, detail=d, hint=h) for token, (m, d, h) in data["refused"].items()}
        return Decisions(data["budget"], shares, refused)
    except (OSError, ValueError, KeyError, TypeError):
        return None


class VectorMemory:
    """The keeper's side: hands out shares. May be called from several threads."""

    def __init__(self, path: Path, budget: int) -> None:
        self._path = path
        self._lock = threading.Lock()
        before = read_decisions(path)
        shares = before.shares if before is not None and before.budget == budget else {}
        self._now = Decisions(budget, shares)
        self._tokens: dict[Key, str] = {}  # of the refused
        self._written: dict[str, Any] = {}

    def judge(self, key: Key, token: str, size: int, table: str) -> OutOfMemory | None:
        """Tell why an index of `size` bytes may not be opened; None where it may, and then it has its share.

        What has no files, `size` 0, is not opened anyway, and has its share taken back.
        """
        with self._lock:
            self._forget_refusal(key)
            if not size or key in self._now.shares or self._now.used + size <= self._now.budget:
                self._now.shares[key] = size
                return None
            error = _not_enough(table, size, 0, self._now.used, self._now.budget)
            self._now.refused[token] = error
            self._tokens[key] = token
            return error

    def reserve(self, key: Key, total: int, building: int, kept: int, table: str) -> None:
        """Give a build its share: the bytes of what it makes, of making it, and of the index's older version that is kept meanwhile.

        The share holds until keep() or judge() says what the index really has. Raises OutOfMemory.
        """
        with self._lock:
            taken = self._now.used - self._now.shares.get(key, 0) + kept
            if taken + total + building > self._now.budget:
                raise _not_enough(table, total, building, taken, self._now.budget)
            self._now.shares[key] = kept + total + building

    def keep(self, key: Key, size: int) -> None:
        """Note the size of a version that was published: it has grown, or was built with a share."""
        with self._lock:
            self._forget_refusal(key)
            self._now.shares[key] = size

    def retain(self, dbname: str, known: set[int]) -> None:
        """Take back the shares of a database's indexes that are not there any more."""
        with self._lock:
            for key in [key for key in {*self._now.shares, *self._tokens} if key[0] == dbname]:
                if key[1] not in known:
                    self._now.shares.pop(key, None)
                    self._forget_refusal(key)

    def retain_databases(self, known: set[str]) -> None:
        """Take back the shares of databases that are not there any more."""
        with self._lock:
            gone = {dbname for dbname, _ in self._now.shares} - known
        for dbname in gone:
            self.retain(dbname, set())

    def refuses(self, key: Key) -> bool:
        """Tell whether an index was refused when it was last judged."""
        return key in self._tokens

    def write(self) -> None:
        """Bring the decisions to where workers read them, if they are not there yet. Raises OSError."""
        with self._lock:
            data = self._now.to_json()
            if data == self._written and self._path.exists():
                return
            draft = self._path.with_suffix(".new")
            draft.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft.write_bytes(orjson.dumps(data))
            draft.replace(self._path)
            self._written = data

    def _forget_refusal(self, key: Key) -> None:
        token = self._tokens.pop(key, None)
        if token is not None:
            self._now.refused.pop(token, None)


def _not_enough(table: str, total: int, building: int, taken: int, budget: int) -> OutOfMemory:
    making = f" and {building:,} more while it is built" if building else ""
    return OutOfMemory(
        f'not enough vector memory for an index on table "{table}"',
        detail=f"It takes {total:,} bytes{making}; {taken:,} of vector_memory_bytes ({budget:,}) are taken.",
        hint="Drop another index, or restart the engine with more: "
        f"PYTHIA_ENGINE_VECTOR_MEMORY_BYTES={taken + total + building} pythia engine restart",
    )
