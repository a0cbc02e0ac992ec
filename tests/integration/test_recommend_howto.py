"""What docs/howto/train-a-recommender.md shows of its training, beside the same training here.

Other processors round otherwise, and a training carries that on: figures of the page may differ from these in their last decimals, so
test_docs.py does not compare them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pythiadb
from pythiadb.recommend import Settings, Trained, deploy, fold_in, for_user, read_ratings, train
from tools.fetch_data import fetch_movielens

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/howto/train-a-recommender.md").read_text()
NEAR = 0.03  # of a rating
NEWCOMER = 1_000_000
ITEMS = 1_682


@pytest.fixture(scope="module")
def trained() -> Trained:
    """What the page's command learns."""
    return train(read_ratings(fetch_movielens(ROOT / ".cache" / "data") / "ratings.csv"), Settings(threads=1))


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def listed(title: str) -> dict[int, float]:
    """The ratings by item that `for-user` printed in a section."""
    printed = section(title).partition("$ pythia recommend for-user")[2].partition("```")[0]
    found = re.findall(r"^│ +(\d+) │.*│ +([\d.]+) │$", printed, re.MULTILINE)
    return {int(item): float(rating) for item, rating in found}


def test_errors_are_those_of_the_page(trained: Trained) -> None:
    shown = re.search(r"RMSE ([\d.]+) in training, ([\d.]+) on ratings held out", section("Train"))
    assert shown is not None
    best = trained.history[trained.best_epoch - 1]
    # Which of two passes with nearly the same error is kept decides about the error in training.
    assert best.train_rmse == pytest.approx(float(shown[1]), abs=0.01)
    assert best.validation_rmse == pytest.approx(float(shown[2]), abs=0.002)


def test_lists_are_those_of_the_page(db: pythiadb.Connection, trained: Trained) -> None:
    deploy(db, trained, "taste")
    of_user = {row.id: row.rating for row in for_user(db, "taste", 42, count=ITEMS)}
    shown = listed("Recommend")
    assert len(shown) == 5
    assert {item: of_user[item] for item in shown} == pytest.approx(shown, abs=NEAR)

    given = {int(item): float(rating) for item, rating in re.findall(r" (\d+)=(\d)", section("Somebody new"))}
    assert fold_in(db, "taste", NEWCOMER, given).used == 5
    rows = for_user(db, "taste", NEWCOMER, count=ITEMS, exclude=[50, 89, 183])
    of_newcomer, shown = {row.id: row.rating for row in rows}, listed("Somebody new")
    assert len(shown) == 3
    assert {item: of_newcomer[item] for item in shown} == pytest.approx(shown, abs=NEAR)
    assert min(of_newcomer[item] for item in shown) > rows[2].rating - NEAR
