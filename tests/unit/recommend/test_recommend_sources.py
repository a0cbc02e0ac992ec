"""Training from what ratings are read from, without reading them before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from low_rank import low_rank

from pythiadb.recommend import Ratings, Settings, read_ratings, train


def _frame(ratings: Ratings) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "userId": np.asarray(ratings.user_ids)[ratings.users],
            "movieId": ratings.item_ids.to_numpy(zero_copy_only=False)[ratings.items],
            "rating": ratings.values,
            "timestamp": ratings.times,
        }
    )


def _file(frame: pd.DataFrame, folder: Path) -> Path:
    frame.to_csv(folder / "ratings.csv", index=False)
    return folder / "ratings.csv"


SOURCES: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "path": _file,
    "text": lambda frame, folder: str(_file(frame, folder)),
    "frame": lambda frame, _: frame,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_train_reads_what_read_ratings_reads(kind: str, tmp_path: Path) -> None:
    frame = _frame(low_rank(users=60, items=40, count=900))
    settings = Settings(dimensions=4, max_epochs=2, threads=1)
    source = SOURCES[kind](frame, tmp_path)
    found, expected = train(source, settings), train(read_ratings(frame), settings)
    assert found.fingerprint == expected.fingerprint
    assert (found.user_ids, found.item_ids) == (expected.user_ids, expected.item_ids)
    np.testing.assert_array_equal(found.factors.item_vectors, expected.factors.item_vectors)
