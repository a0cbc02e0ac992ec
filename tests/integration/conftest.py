"""Fixtures that several files of tests share: models that score, the command line's options, databases, a web server."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import scoring_models
import shop_models
from fetching_calls import ANIMALS
from psycopg.types.json import Jsonb
from scoring_calls import Ask, load
from scoring_models import Made
from scoring_tables import MATRIX, fill

import pythiadb
from pythiadb.postgres.server import Server
from tests.integration.vector_tables import DOCS, JOURNALED, define, one
from tests.integration.web_servers import Site, serve
from tests.unit.models.small_models import string_graph


@pytest.fixture(scope="session")
def made() -> dict[str, Made]:
    return scoring_models.make_all()


@pytest.fixture(scope="module")
def models(shop: Path, made: dict[str, Made]) -> Iterator[str]:
    """A schema with the models."""
    name = "scoring_models"
    with pythiadb.connect(shop, autocommit=True) as db:
        db.execute(f"CREATE SCHEMA {name}".encode())
        db.execute(f"SET search_path = {name}, public, pythia".encode())
        for model, one in made.items():
            db.execute(
                "CALL dbms_vector.load_onnx_model(:name, :graph, :metadata)",
                (model, one.graph, one.metadata_text),
            )
        yield name
        db.execute(f"DROP SCHEMA {name} CASCADE".encode())


@pytest.fixture
def people(db: pythiadb.Connection, models: str) -> pythiadb.Connection:
    return fill(db, models)


@pytest.fixture
def oracle_people(oracle: pythiadb.Connection, models: str) -> pythiadb.Connection:
    return fill(oracle, models)


@pytest.fixture
def sdb(db: pythiadb.Connection, models: str) -> pythiadb.Connection:
    """A connection with the models in its search_path."""
    path = db.execute("SHOW search_path").fetchone()
    assert path is not None
    db.execute(f"SET search_path = {path[0]}, {models}".encode())
    return db


@pytest.fixture(scope="module")
def labels(made: dict[str, Made]) -> list[str]:
    """What the forest says of each row; NULL is NaN to it."""
    probabilities = made["forest"].bare(MATRIX, "probabilities")
    known = made["forest"].model.predict(scoring_models.X)
    found = made["forest"].model.classes_[probabilities.argmax(axis=1)].tolist()
    assert found[: len(known)] == known.tolist()
    return list(found)


@pytest.fixture(scope="module")
def loaded(shop: Path, made: dict[str, Made]) -> Iterator[pythiadb.Connection]:
    """A connection in autocommit mode that finds the models, which go with the module."""
    with pythiadb.connect(shop, autocommit=True) as db:
        db.execute("CREATE SCHEMA plain_scoring; SET search_path = plain_scoring, public, pythia")
        for name in ("forest", "numbers", "spend", "line", "segments", "mixture", "towns"):
            load(db, name, made[name].graph, made[name].metadata)
        reranker = shop_models.reranker()
        load(db, "reranker", reranker.graph, reranker.metadata)
        load(
            db,
            "animals",
            string_graph().SerializeToString(),
            {"function": "embedding", "input": {"input": ["DATA"]}},
        )
        yield db
        db.rollback()
        db.execute("RESET ROLE; DROP SCHEMA plain_scoring CASCADE")
        db.execute("SELECT remove_orphaned_models()")


@pytest.fixture
def ask(loaded: pythiadb.Connection) -> Ask:
    """Call a function for each of some records; a set comes as a list."""

    def call(function: str, model: str, records: list[Any], arguments: str = "") -> list[Any]:
        found = []
        for record in records:
            rows = loaded.execute(
                f"SELECT * FROM {function}(%s::regclass, %s::jsonb{arguments})".encode(),
                (model, None if record is None else Jsonb(record)),
            ).fetchall()
            found.append(rows if function.endswith("_set") else rows[0][0])
        return found

    return call


@pytest.fixture
def journaled(db: pythiadb.Connection) -> int:
    """A table docs of four rows, one without a vector, and the number of an index on it."""
    db.execute(JOURNALED.encode())
    return define(db, "docs_v", "docs", include_columns=["kind"])


@pytest.fixture
def docs(db: pythiadb.Connection) -> pythiadb.Connection:
    """A connection with the table docs, which has columns of all kinds of vectors."""
    db.execute(DOCS)
    return db


@pytest.fixture
def role(db: pythiadb.Connection) -> Iterator[str]:
    """A role that may make tables in the test's schema."""
    name = f"somebody_{uuid.uuid4().hex[:8]}"
    schema = one(db, "SELECT current_schema()")
    db.execute(f"CREATE ROLE {name}; GRANT USAGE, CREATE ON SCHEMA {schema} TO {name}".encode())
    yield name
    db.rollback()
    db.execute(f"RESET ROLE; DROP OWNED BY {name}; DROP ROLE {name}".encode())


@pytest.fixture
def data(db: pythiadb.Connection, shop: Path) -> tuple[str, str]:
    """The options that name the test's database."""
    return "--data", str(shop)


@pytest.fixture
def drop(db: pythiadb.Connection) -> Iterator[list[str]]:
    """Models to drop afterwards."""
    names: list[str] = []
    yield names
    for name in names:
        db.execute("CALL dbms_vector.drop_onnx_model(%s, true)", (name,))


@pytest.fixture
def server(db: pythiadb.Connection) -> Server:
    assert db.server is not None
    return db.server


@pytest.fixture
def make_database(server: Server) -> Iterator[Callable[..., str]]:
    """Make empty databases on the test server; returns their connection strings."""
    made: list[str] = []

    def make(options: str = "") -> str:
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(server.conninfo(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 {options}".encode())
        made.append(name)
        return server.conninfo(name)

    yield make
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def site() -> Iterator[Site]:
    """A web server of this machine with animals.onnx."""
    with serve(Site(files={"/animals.onnx": ANIMALS})) as running:
        yield running


@pytest.fixture
def fetch_dir(db: pythiadb.Connection, make_directory: Callable[[], Path]) -> Path:
    """A folder of the server, known as FETCH_DIR."""
    path = make_directory()
    db.execute("CALL pythia.create_directory('FETCH_DIR', %s)", (str(path),))
    return path


@pytest.fixture
def clean(db: pythiadb.Connection) -> Iterator[pythiadb.Connection]:
    """A connection whose leftover models are removed afterwards, so that tests may count."""
    db.execute("SELECT pythia.remove_orphaned_models()")
    yield db
    if not db.closed:
        db.rollback()
        schema = db.execute("SELECT current_schema()").fetchone()
        db.execute(f"DROP SCHEMA {schema[0]} CASCADE; CREATE SCHEMA {schema[0]}".encode())  # type: ignore[index]
        db.execute("SELECT pythia.remove_orphaned_models()")


@pytest.fixture
def model_dir(make_directory: Callable[[], Path], clean: pythiadb.Connection) -> Path:
    """A folder of the server with animals.onnx in it, known as MODEL_DIR."""
    path = make_directory()
    (path / "animals.onnx").write_bytes(ANIMALS)
    clean.execute("CALL pythia.create_directory('MODEL_DIR', %s)", (str(path),))
    return path
