"""The files of a version of an index: <versions>/<token>/ holds a manifest and a file of dead rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from pythiadb.errors import CorruptedIndex
from pythiadb.index import container
from pythiadb.index.definition import Definition
from pythiadb.index.keys import Positions

Deleted: TypeAlias = Mapping[str, Positions]

_DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a version consists of. `segments`: {"name", "kind", "rows"} each; `curve`: what accuracy.py measured, as JSON."""

    number: int
    token: str
    definition: Definition
    segments: list[dict[str, Any]]
    curve: dict[str, Any] | None = None


def write_version(folder: Path, manifest: Manifest, deleted: Deleted) -> Path:
    """Write a version into `folder`/<token>, visible at once when whole; return that path. Raises OSError."""
    new = container.NewFolder(folder / manifest.token)
    names = [segment["name"] for segment in manifest.segments]
    arrays = {name: np.sort(deleted[name]) for name in names if name in deleted and len(deleted[name])}
    try:
        container.write(new.path / _DELETED, _DELETED, {}, arrays)
        new.publish(
            {
                "number": manifest.number,
                "token": manifest.token,
                "definition": manifest.definition.to_json(),
                "segments": manifest.segments,
                "curve": manifest.curve,
            }
        )
    except BaseException:
        new.discard()
        raise
    return new.target


def read_version(folder: Path, *, verify: bool) -> tuple[Manifest, Deleted]:
    """Read the version in `folder`; `verify` checks every byte. Raises CorruptedIndex."""
    stored = container.read_manifest(folder, verify=verify)
    try:
        manifest = Manifest(
            stored["number"],
            stored["token"],
            Definition.from_json(stored["definition"]),
            stored["segments"],
            stored["curve"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptedIndex(
            f'the manifest of an index version cannot be read: "{folder}"', detail=f"{error}."
        ) from error
    return manifest, container.read(folder / _DELETED, _DELETED, verify=verify)[1]
