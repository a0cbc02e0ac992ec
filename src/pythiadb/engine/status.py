"""What workers say about themselves: one small JSON file each, replaced whole, so that a reader never waits for a worker."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import orjson


class WorkerStatus:
    """The status file of one worker."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.changed = True

    def write(self, facts: dict[str, Any]) -> None:
        """Replace the file."""
        self.changed = False
        draft = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk must not stop the engine
            draft.write_bytes(orjson.dumps(facts))
            draft.replace(self._path)

    def left_behind(self) -> dict[str, Any]:
        """Return what a worker that died wrote last."""
        try:
            facts: dict[str, Any] = orjson.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return facts

    def remove(self) -> None:
        """Delete the file: the worker has gone."""
        self._path.unlink(missing_ok=True)


def read_all(folder: Path) -> dict[str, Any]:
    """Return {"workers": [...]} from the status files in `folder`, by worker number."""
    workers = []
    for path in sorted(folder.glob("worker-*.json")):
        with contextlib.suppress(FileNotFoundError, ValueError):
            workers.append(orjson.loads(path.read_bytes()))
    return {"workers": workers}
