"""How tables are shown: folded to a terminal or to COLUMNS, never elsewhere."""

from __future__ import annotations

import pytest

from pythiadb.cli import display

NAMES = [letter * 40 for letter in "abc"]


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    display.print_table(NAMES, [NAMES])
    return capsys.readouterr().out.splitlines()


def test_a_piped_table_is_not_folded(capsys: pytest.CaptureFixture[str]) -> None:
    top, header, _, row, _ = shown(capsys)
    assert len(top) == len(row) == 1 + len(NAMES) * (40 + 3)
    for name in NAMES:
        assert name in header
        assert name in row


def test_columns_say_how_wide_a_piped_table_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = shown(capsys)
    assert {len(line) for line in lines} == {80}
    assert "".join(line[2:].split(" ")[0] for line in lines if line.startswith("│")) == NAMES[0]
