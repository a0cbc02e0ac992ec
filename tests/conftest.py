"""Fixtures for tests against a real server: one embedded database a test run, a schema of its own a test."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pythiadb
from pythiadb.postgres import cluster
from tools.fetch_models import fetch_minilm

REPOSITORY = Path(__file__).parents[1]

# What a table looks like depends on them, and readline sets them in the processes that pytest-xdist starts.
for variable in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(variable, None)


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The Hugging Face folder of all-MiniLM-L6-v2, fetched once."""
    return fetch_minilm(REPOSITORY / ".cache" / "models")


@pytest.fixture
def make_directory() -> Iterator[Callable[[], Path]]:
    """Make directories that the server's own account can reach too (pytest's tmp_path is closed to it under root)."""
    made: list[Path] = []

    def make() -> Path:
        folder = Path(tempfile.mkdtemp(prefix="pythia-test-"))
        folder.chmod(0o755)
        made.append(folder)
        return folder

    yield make
    for folder in made:
        for shop in [folder, *folder.iterdir()]:
            if (shop / "pgdata").exists():
                cluster.stop(shop)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def shop(minilm_folder: Path) -> Iterator[Path]:
    """The directory of a running database with the model `minilm` in schema public."""
    folder = Path(tempfile.mkdtemp(prefix="pythia-shop-"))
    folder.chmod(0o755)
    with pythiadb.connect(folder / "shop") as db:
        pythiadb.load_model(db, minilm_folder, "public.minilm")
    with pythiadb.connect(folder / "shop") as keep:
        yield folder / "shop"
        keep.rollback()
    cluster.stop(folder / "shop")
    shutil.rmtree(folder)


def _connect(shop: Path, dialect: str) -> Iterator[pythiadb.Connection]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with pythiadb.connect(shop, dialect=dialect, autocommit=True) as db:
        db.execute(f"CREATE SCHEMA {name}".encode())
        db.execute(f"SET search_path = {name}, public, pythia".encode())
        yield db
        if not db.closed:
            db.rollback()
            db.execute(f"DROP SCHEMA {name} CASCADE".encode())


@pytest.fixture
def db(shop: Path) -> Iterator[pythiadb.Connection]:
    """A connection in autocommit mode whose tables lie in a schema that goes with the test."""
    yield from _connect(shop, "postgres")


@pytest.fixture
def oracle(shop: Path) -> Iterator[pythiadb.Connection]:
    """The same in the Oracle dialect."""
    yield from _connect(shop, "oracle")
