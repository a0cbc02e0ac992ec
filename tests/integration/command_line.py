"""The command line in this process."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from pythiadb.cli import main


def pythia(*arguments: str | Path, input: str | None = None) -> Result:
    """Run a command in this process; anything but an orderly end is raised."""
    result = CliRunner().invoke(main, [str(a) for a in arguments], input=input, catch_exceptions=False)
    assert "Traceback" not in result.output
    return result


def ok(*arguments: str | Path, input: str | None = None) -> str:
    """Run a command that succeeds and return its standard output."""
    result = pythia(*arguments, input=input)
    assert result.exit_code == 0, result.output
    return result.stdout
