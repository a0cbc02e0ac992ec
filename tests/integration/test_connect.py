"""What pythiadb.connect takes: directories, URLs, libpq's keywords and values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import pythiadb
from pythiadb.errors import InvalidParameter


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://postgres@/postgres?host={host}",
        "postgres://postgres@/postgres?host={host}",
        "host={host} user=postgres dbname=postgres",
        " host = '{host}' user=postgres",
    ],
)
def test_connection_to_a_server(
    db: pythiadb.Connection, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pythiadb.connect(address.format(host=db.info.host), autocommit=True) as connection:
        assert connection.server is None
        row = connection.execute("SELECT VECTOR_EMBEDDING(public.minilm USING 'x' AS data)").fetchone()
        assert row is not None
        assert row[0].shape == (384,)
    assert list(tmp_path.iterdir()) == []


def test_connection_string_that_is_none_makes_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for wrong in ("shop=1", "host=x port", "host='x"):
        with pytest.raises(InvalidParameter, match="invalid connection string") as caught:
            pythiadb.connect(wrong)
        assert "Path" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_directory_whose_name_looks_like_a_connection_string(
    make_directory: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_directory()
    monkeypatch.chdir(folder)
    with pythiadb.connect(Path("host=x"), autocommit=True) as connection:
        assert connection.server is not None
        assert connection.server.layout.root == folder / "host=x"
    for name in ("./host=x", str(folder / "host=x")):
        with pythiadb.connect(name) as connection:
            assert connection.server is not None
