"""MovieLens 100k out of RecBole's wheel, written as MovieLens writes its files today: ratings.csv and movies.csv.

RecBole keeps the year apart from the title and separates genres by spaces; both are put back as they were, so that a title reads
"Toy Story (1995)". The ratings are sorted by user and movie. The data is GroupLens's (F. M. Harper and J. A. Konstan, The MovieLens
Datasets: History and Context, ACM TiiS 5, 2015): it is for research, and may not be passed on, so it is fetched and never kept in a
repository.
"""

from __future__ import annotations

import csv
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tools.fetching import digest

PINNED = {
    "ratings.csv": "2603fc7b2d78197b4b93483e335dca9badddc1b5ad700013aac7e565abd04215",
    "movies.csv": "3308d14e296c4fe0973fd2a7772b89de34effc19212ce6d3a8ece30844ea4da7",
}
_INSIDE = "recbole/dataset_example/ml-100k/ml-100k"
_NO_TITLE = "unkonwn"  # RecBole's spelling, as title and as year
_NO_GENRES = {"unknown": "(no genres listed)"}


def is_right(folder: Path) -> bool:
    """Tell whether both files are there with their pinned content."""
    return all(digest(folder / name) == pinned for name, pinned in PINNED.items())


def write(wheel: Path, folder: Path) -> None:
    """Write both files out of the wheel, in place of what `folder` has. Raises KeyError or BadZipFile for another archive."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as work, zipfile.ZipFile(wheel) as archive:
        made = Path(work) / folder.name
        made.mkdir()
        ratings = [("userId", "movieId", "rating", "timestamp"), *_ratings(_rows(archive, "inter"))]
        movies = [("movieId", "title", "genres"), *_movies(_rows(archive, "item"))]
        for name, rows in (("ratings.csv", ratings), ("movies.csv", movies)):
            with (made / name).open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)


def _rows(archive: zipfile.ZipFile, suffix: str) -> list[list[str]]:
    """Return the rows of one of RecBole's tables, without its header."""
    text = archive.read(f"{_INSIDE}.{suffix}").decode("utf-8")
    return [line.split("\t") for line in text.splitlines()[1:]]


def _ratings(rows: list[list[str]]) -> Iterator[tuple[int, int, float, int]]:
    for user, movie, rating, time in sorted(rows, key=lambda row: (int(row[0]), int(row[1]))):
        yield int(user), int(movie), float(rating), int(float(time))


def _movies(rows: list[list[str]]) -> Iterator[tuple[int, str, str]]:
    for movie, title, year, genres in rows:
        whole = "unknown" if title == _NO_TITLE else f"{title} ({year})"
        yield int(movie), whole, _NO_GENRES.get(genres, genres.replace(" ", "|"))
