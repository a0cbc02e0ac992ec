"""The demonstration of recommendations, as `make demo-movies` runs it, with few passes over the ratings."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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
