"""MovieLens 100k in five folds: errors of ratings, and lists, of the trained model, the baselines and `implicit`.

No fold's own ratings have a say in its training: when to stop is told by a tenth of the others. Lists are judged by the fold's ratings
of at least 4, out of all items that the user did not rate in the other folds.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.common import machine, report
from bench.recommend.data import movielens
from bench.search.peers import TIMEOUT, environment
from pythiadb.cli.display import console
from pythiadb.recommend.evaluation import Line, evaluate
from pythiadb.recommend.metrics import ranking
from pythiadb.recommend.ratings import Ratings
from pythiadb.recommend.split import Split, split_ratings
from pythiadb.recommend.split import folds as split_into_folds
from pythiadb.recommend.training import Settings, train
from tools.fetching import reason

FOLDS = 5
TARGET = 0.92
WORKER = Path(__file__).with_name("peer_worker.py")
PACKAGES = ("implicit==0.7.3", "scipy")
COLUMNS = ["", "RMSE", "target", "MAE", "recall@10", "nDCG@10", "seconds of training"]


@dataclass(frozen=True)
class Result:
    """One recommender in one fold; the seconds of its training, None where there was none."""

    line: Line
    seconds: float | None = None


def measure(count: int, *, peers: bool) -> None:
    """Print and keep the table: means over the first `count` folds, with their range for the RMSE."""
    facts = machine()
    facts["versions"] |= {"torch": version("torch")}
    ratings = movielens()
    python = _peer() if peers else None
    found: list[list[Result]] = []
    for number, fold in enumerate(islice(split_into_folds(ratings, FOLDS), count)):
        found.append(ours(ratings, fold, Settings(seed=number)))
        if python:
            found[-1].append(implicit(ratings, fold, python))
    rows = [_row([fold[place] for fold in found]) for place in range(len(found[0]))]
    raw = {"settings": asdict(Settings()), "folds": [[asdict(result) for result in fold] for fold in found]}
    report("recommend-folds", COLUMNS, rows, raw, facts)
    _say_about_lists(rows)


def ours(ratings: Ratings, fold: Split, settings: Settings) -> list[Result]:
    """Train on the fold's training ratings, a tenth of which tells when to stop; measure it and the baselines."""
    started = time.perf_counter()
    trained = train(ratings, settings, split=_within(ratings, fold.train, settings))
    seconds = time.perf_counter() - started
    model, *baselines = evaluate(trained, ratings, fold).lines
    return [Result(model, seconds), *(Result(line) for line in baselines)]


def implicit(ratings: Ratings, fold: Split, python: Path) -> Result:
    """Learn with `implicit` from the same ratings; it predicts which items are chosen, not how they are rated."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        for name in ("users", "items", "values"):
            np.save(folder / f"{name}.npy", getattr(ratings, name)[fold.train])
        np.save(folder / "shape.npy", [len(ratings.user_ids), len(ratings.item_ids)])
        content = _run(python, folder)
        users, items = np.load(folder / "user_vectors.npy"), np.load(folder / "item_vectors.npy")

    name = f"implicit {content['version']}, ALS, {content['passes']} passes"
    return Result(
        Line(name, None, None, ranking(lambda asked: users[asked] @ items.T, ratings, fold)),
        content["seconds"],
    )


def _peer() -> Path | None:
    """Return the Python that has `implicit`, None where it does not install."""
    try:
        return environment("implicit", PACKAGES)
    except (subprocess.SubprocessError, OSError) as error:
        console.print(f"implicit is not measured: {reason(error)}")
        return None


def _run(python: Path, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [str(python), str(WORKER), str(folder)], check=True, capture_output=True, text=True, timeout=TIMEOUT
    )
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _within(ratings: Ratings, positions: NDArray[np.int64], settings: Settings) -> Split:
    """Split the ratings at `positions` as train() would split them if there were no others."""
    part = replace(
        ratings,
        users=ratings.users[positions],
        items=ratings.items[positions],
        values=ratings.values[positions],
        times=None if ratings.times is None else ratings.times[positions],
    )
    inner = split_ratings(part, share=settings.validation_share, by=settings.split, seed=settings.seed)
    return Split(positions[inner.train], positions[inner.validation])


def _row(results: Sequence[Result]) -> list[Any]:
    lines = [result.line for result in results]
    rankings = [line.ranking for line in lines if line.ranking]
    seconds = [result.seconds for result in results if result.seconds is not None]
    is_ours = seconds and lines[0].rmse is not None
    return [
        lines[0].name,
        _with_range([line.rmse for line in lines if line.rmse is not None]),
        f"≤ {TARGET}" if is_ours else "",
        _mean([line.mae for line in lines if line.mae is not None]),
        _mean([found.recall for found in rankings]),
        _mean([found.ndcg for found in rankings]),
        f"{statistics.median(seconds):.1f}" if seconds else "",
    ]


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.4f}" if values else ""


def _with_range(values: Sequence[float]) -> str:
    return f"{_mean(values)} ({min(values):.4f} … {max(values):.4f})" if values else ""


def _say_about_lists(rows: Sequence[Sequence[Any]]) -> None:
    model, _, popular = (float(row[-2]) for row in rows[:3])
    verb = "loses to" if model < popular else "is at least as good as"
    console.print(
        f"In lists of all items the model {verb} popularity: nDCG@10 {model:.3f} against {popular:.3f}. "
        "It is trained to predict ratings, not choices."
    )
