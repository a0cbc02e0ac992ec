"""Statements that must run as they stand in the Oracle dialect."""

from __future__ import annotations

from pathlib import Path

import pythiadb
from pythiadb.sql import split_statements

STATEMENTS = split_statements(
    (Path(__file__).parent / "acceptance_foundation.sql").read_text(), dialect="oracle"
)


def test_foundation_statements_run_as_they_stand(oracle: pythiadb.Connection) -> None:
    """Every statement runs, with `:q` bound where it stands, and the searches find the right row first."""
    first: dict[str, object] = {}
    for statement in STATEMENTS:
        params = {"q": "why does my laptop keep rebooting"} if ":q" in statement else None
        cursor = oracle.execute(statement, params)
        if cursor.description is not None:
            first[statement] = cursor.fetchall()[0]
    searches = [row for statement, row in first.items() if "FETCH FIRST 10" in statement]
    assert [row[0] for row in searches] == [1, 1, 1]
    assert [row for statement, row in first.items() if "EUCLIDEAN" in statement] == [(8**0.5, 3, "[1,2,3]")]
    assert [row[:3] for statement, row in first.items() if "user_mining_models" in statement] == [
        ("MINILM", "EMBEDDING", "ONNX")
    ]
