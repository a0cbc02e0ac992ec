"""Loading small models, and what a load leaves behind."""

from __future__ import annotations

from typing import Any

import pythiadb
from tests.integration.fetching_calls import ANIMALS

DEFAULT = '{"function":"embedding","embeddingOutput":"embedding","input":{"input":["DATA"]}}'


def traces(db: pythiadb.Connection) -> tuple[Any, ...]:
    """Everything that a load leaves in the database: rows, files, chunks, views."""
    row = db.execute(
        "SELECT (SELECT count(*) FROM pythia.model), (SELECT count(*) FROM pythia.model_file), "
        "(SELECT count(*) FROM pythia.model_chunk), (SELECT count(*) FROM pg_class WHERE relkind = 'v')"
    ).fetchone()
    assert row is not None
    return tuple(row)


def load(db: pythiadb.Connection, name: str, data: bytes = ANIMALS, metadata: str = DEFAULT) -> None:
    db.execute("CALL dbms_vector.load_onnx_model(%s, %s::bytea, %s::jsonb)", (name, data, metadata))


def embed(db: pythiadb.Connection, model: str, text: str) -> list[float]:
    row = db.execute("SELECT vector_embedding(%s::regclass, %s)", (model, text)).fetchone()
    assert row is not None
    found: list[float] = row[0].tolist()
    return found
