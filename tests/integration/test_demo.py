"""The demonstration, as `make demo` runs it, over few rows."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROWS = 150
REPOSITORY = Path(__file__).parents[2]
ANSWER = re.compile(r"^(\d+) rows in \d+ ms$", re.MULTILINE)


def run_demo(data: Path, model: Path) -> str:
    command = [
        sys.executable,
        "-m",
        "examples.demo",
        "--data",
        str(data),
        "--model",
        str(model),
        "--limit",
        str(ROWS),
    ]
    done = subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def searches(output: str) -> list[str]:
    """The five searches with their answers, without how long they took."""
    return re.split(
        r"^\d\. ", re.sub(r" in \d+ ms", "", output).partition("The database stays")[0], flags=re.MULTILINE
    )[1:]


def test_second_run_embeds_nothing_and_answers_the_same(
    make_directory: Callable[[], Path], minilm_folder: Path
) -> None:
    data = make_directory() / "demo"
    first = run_demo(data, minilm_folder)
    assert f"Embed the new rows: {ROWS} texts" in first
    assert len(ANSWER.findall(first)) == len(searches(first)) == 5
    assert ANSWER.findall(first)[0] == "5"
    assert f"sql --data {data}" in first

    second = run_demo(data, minilm_folder)
    assert "Embed the new rows: 0 texts" in second
    assert searches(second) == searches(first)
