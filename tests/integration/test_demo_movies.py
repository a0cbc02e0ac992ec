"""The demonstration of recommendations, as `make demo-movies` runs it, with few passes over the ratings."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from examples import show
from pythiadb.postgres import cluster

REPOSITORY = Path(__file__).parents[2]
SOURCES = ("Apocalypse Now (1979)", "Fargo (1996)", "Toy Story (1995)")


def run_demo(folder: Path, model: Path) -> str:
    command = [sys.executable, "-m", "examples.movies", "--folder", folder, "--model", model, "--passes", "2"]
    done = subprocess.run(
        [str(part) for part in command],
        cwd=REPOSITORY,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("width", [60, 80, 120])
def test_pairs_keep_their_distances_in_a_narrow_window(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Titles are cut where they do not fit."""
    printed = io.StringIO()
    monkeypatch.setattr(show, "console", Console(file=printed, width=width))
    long = "Robert A. Heinlein's The Puppet Masters (1994)"
    lists = [
        [("Apocalypse Now (1979)", long, near), ("Fargo (1996)", "Brazil", 1.25)] for near in (0.345, 0.5)
    ]
    show.show_pairs(("liked alike: cf_embedding", "reads alike: content_embedding"), *lists)
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert any(re.search(r"Robe.*…  +0\.345 .*Robe.*…  +0\.500 *$", line) for line in lines)
    assert any(re.search(r"Brazil +1\.250 +Brazil +1\.250 *$", line) for line in lines)


def test_numbers_have_the_decimals_that_their_column_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.StringIO()
    monkeypatch.setattr(show, "console", Console(file=printed, width=80))
    show.show_table(
        ["title", "given", "stars", "distance"], [("Alien", 1.0, 3.5, 0.12345), ("Brazil", 5.0, 4.0, 0.5)]
    )
    rows = [line.split() for line in printed.getvalue().splitlines()]
    assert ["Alien", "1", "3.5", "0.123"] in rows
    assert ["Brazil", "5", "4.0", "0.500"] in rows


def test_second_run_puts_itself_in_the_place_of_the_first(
    make_directory: Callable[[], Path], minilm_folder: Path
) -> None:
    folder = make_directory() / "movies"
    try:
        first = run_demo(folder, minilm_folder)
        assert "1,682 movies, 100,000 ratings" in first
        assert "Embed titles and genres, too: 1,682 texts" in first
        for source in SOURCES:
            assert re.search(
                rf"^ ?{re.escape(source)} +\w.* 0\.\d{{3}} .* 0\.\d{{3}} *$", first, re.MULTILINE
            )
        assert "Somebody new" in first
        assert (folder / "report" / "report.html").exists()
        assert (folder / "report" / "curves.png").exists()

        second = run_demo(folder, minilm_folder)
        assert "Embed titles and genres, too: 0 texts" in second
        assert "Deploy it as the model cf_recommender" in second
    finally:
        cluster.stop(folder / "database")
