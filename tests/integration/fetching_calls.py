"""A small model to fetch, and how it is fetched and tried."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import psycopg

import pythiadb
from pythiadb.engine import settings
from tests.unit.models.small_models import string_graph

ANIMALS = string_graph().SerializeToString()
SHA256 = hashlib.sha256(ANIMALS).hexdigest()
LIMIT = settings.load({}, {}).max_model_bytes  # as the test server's engine has it
CLOUD = "CALL dbms_vector.load_onnx_model_cloud(%s, %s, %s)"


def fetch(db: pythiadb.Connection, uri: str, credential: str | None = None, name: str = "fetched") -> None:
    db.execute(CLOUD, (name, credential, uri))


def score(db: psycopg.Connection[Any], model: str = "fetched", text: str = "dog") -> list[float]:
    row = db.execute("SELECT vector_embedding(%s::regclass, %s)::real[]", (model, text)).fetchone()
    assert row is not None
    found: list[float] = row[0]
    return found


def left_behind(db: pythiadb.Connection) -> tuple[Any, ...]:
    row = db.execute(
        "SELECT (SELECT count(*) FROM pythia.model), (SELECT count(*) FROM pythia.model_chunk)"
    ).fetchone()
    assert row is not None
    return tuple(row)


def readable(folder: Path) -> Path:
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder
