"""`pythia recommend train`: what is refused before the training, and how lists are judged on ratings of any scale."""

from __future__ import annotations

import csv
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from pythiadb.cli.learning import relevant_rating
from pythiadb.cli.recommend import recommend
from pythiadb.errors import InvalidParameter
from pythiadb.recommend import storing
from pythiadb.recommend.ratings import read_ratings
from pythiadb.recommend.training import Settings, train
from tests.unit.recommend.low_rank import low_rank

Rows = list[tuple[int, int, float]]
LONELY: Rows = [(number, number, 1 + number % 5) for number in range(20)]
ONE_USER: Rows = [(1, number, 1 + number % 5) for number in range(20)]
FEW: Rows = [(1, 1, 5.0), (1, 2, 3.0), (2, 1, 4.0)]


def written(folder: Path, rows: Rows) -> Path:
    path = folder / "ratings.csv"
    with path.open("w", newline="") as out:
        csv.writer(out).writerows([("userId", "movieId", "rating"), *rows])
    return path


def many(scale: float, low: float) -> Rows:
    """Return ratings of 1 to 5 stars on another scale."""
    made = low_rank(users=60, items=40, count=1200)
    stars = np.clip(np.round(made.values), 1, 5)
    return list(
        zip(made.users.tolist(), made.items.tolist(), (low + scale * (stars - 1)).tolist(), strict=True)
    )


def run(*arguments: object) -> Result:
    return CliRunner().invoke(recommend, ["train", *map(str, arguments), "--max-epochs=2", "--dimensions=4"])


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (LONELY, "Held out 0 of the 2 ratings wanted: every user and item keeps a rating."),
        (ONE_USER, "Held out 0 of the 2 ratings wanted: every user and item keeps a rating."),
        (FEW, "Held out no ratings: a share of 0.1 of 3 is less than one."),
    ],
)
def test_a_report_about_nothing_is_refused_before_the_training(rows: Rows, why: str, tmp_path: Path) -> None:
    file, folder, report = written(tmp_path, rows), tmp_path / "taste", tmp_path / "report"
    done = run(file, "--folder", folder, "--report", report, "--overfitting")
    assert isinstance(done.exception, InvalidParameter)
    assert "there can be no report" in str(done.exception)
    assert done.exception.detail == why
    assert done.exception.hint is not None
    assert "validation" not in done.exception.hint
    assert not folder.exists()
    assert not report.exists()


def test_without_a_report_a_note_says_that_nothing_stops_it_early(tmp_path: Path) -> None:
    done = run(written(tmp_path, LONELY), "--folder", tmp_path / "taste")
    assert done.exit_code == 0
    (*_, note) = storing.load(tmp_path / "taste").notes
    assert note.startswith("held out 0 of the 2 ratings wanted")
    assert note.endswith("no early stopping, the last pass counts")


@pytest.mark.parametrize("scale", [1.0, 0.25, 0.1, 20.0])
def test_what_is_relevant_follows_the_scale(scale: float, tmp_path: Path) -> None:
    ratings = read_ratings(written(tmp_path, many(scale, 0.1)))
    trained = train(ratings, Settings(max_epochs=1, dimensions=4, threads=1))
    relevant = relevant_rating(trained, ratings)
    assert relevant == pytest.approx(0.1 + 3 * scale)
    assert (ratings.values >= relevant).sum() == (ratings.values > 0.1 + 2.5 * scale).sum()


@pytest.mark.parametrize("options", [(), ("-k", 3, "--relevant", 0.5)])
def test_the_report_judges_lists_of_ratings_from_0_to_1(options: tuple[object, ...], tmp_path: Path) -> None:
    file, report = written(tmp_path, many(0.25, 0)), tmp_path / "report"
    done = run(file, "--folder", tmp_path / "taste", "--report", report, *options)
    assert done.exit_code == 0
    page = (report / "report.html").read_text()
    k, relevant = (3, 0.5) if options else (10, 0.75)
    assert f"judge lists of {k} out of" in page
    assert f"ratings of at least {relevant:g};" in page


def test_lists_of_no_items_are_refused_before_the_training(tmp_path: Path) -> None:
    done = run(written(tmp_path, FEW), "--folder", tmp_path / "taste", "-k", 0)
    assert done.exit_code == click.UsageError.exit_code
    assert not (tmp_path / "taste").exists()
