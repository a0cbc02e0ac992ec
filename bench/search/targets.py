"""TARGET ACCURACY 80, 90, 95 and 99: what queries that no one has seen get, and what that costs beside the best fixed setting.

Once on the new table, once after 20 rounds in each of which 10 % of the rows are deleted and as many others inserted, and
10 % get another vector. The true answers are those of the rows that are there then. Costs are compared when the engine has come to
rest; before that, only what is found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

import pythiadb
from bench.search import pgvector, pythia
from bench.search.clients import Questions, ask
from bench.search.curves import curve, point
from bench.search.data import Dataset, Vectors
from bench.search.output import Section
from bench.search.truth import exact

TARGETS = (80, 90, 95, 99)
ROUNDS = 20
MEASURING = (
    20  # seconds that the engine may measure an index in the background; it has 60 where nobody waits for it
)
SHARE = 0.1
NOISE = 0.3  # how far a changed vector lies from the row that it was made of, as a share of its length
COLUMNS = ["index", "rows", "target", "recall", "p5", "p50 ms", "÷ best fixed setting", "must be"]


class Churn:
    """A table that changes, and the same rows in memory: row n of `vectors` has the key `keys[n]`."""

    def __init__(self, db: pythiadb.Connection, table: str, base: Vectors) -> None:
        """Begin with the rows that the table was filled with."""
        self._db, self._table = db, table
        self.vectors = base.copy()
        self.keys = np.arange(len(base))
        self._next = len(base)
        self._chance = np.random.default_rng(1)
        db.execute(f"CREATE TEMP TABLE fresh (id bigint, v vector({base.shape[1]}))")

    def round(self) -> None:
        """Delete, insert and update a share of the rows each; three statements."""
        count = int(len(self.keys) * SHARE)
        chosen = self._chance.permutation(len(self.keys))
        gone, changed = chosen[:count], chosen[count : 2 * count]
        self._db.execute(f"DELETE FROM {self._table} WHERE id = ANY (%s)", (self.keys[gone].tolist(),))
        self.keys[gone] = np.arange(self._next, self._next + count)
        self._next += count
        self._stage(gone)
        self._db.execute(f"INSERT INTO {self._table} SELECT id, v FROM fresh")
        self._stage(changed)
        self._db.execute(f"UPDATE {self._table} t SET v = f.v FROM fresh f WHERE f.id = t.id")

    def _stage(self, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        """Give rows new vectors, near those of others, and put them into the temporary table."""
        near = self.vectors[self._chance.integers(0, len(self.vectors), len(rows))]
        noise = self._chance.standard_normal(near.shape, np.float32) * (NOISE / near.shape[1] ** 0.5)
        moved = near + noise
        self.vectors[rows] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
        self._db.execute("TRUNCATE fresh")
        with self._db.cursor() as cursor, cursor.copy("COPY fresh FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int8", "vector"])
            for key, vector in zip(self.keys[rows].tolist(), self.vectors[rows], strict=True):
                copy.write_row((key, vector))
        self._db.execute("ANALYZE fresh")

    def places(self, answers: list[list[int]]) -> list[list[int]]:
        """Return the answers with each key replaced by the row's place in `vectors`."""
        place = {int(key): n for n, key in enumerate(self.keys)}
        return [[place[key] for key in answer] for answer in answers]


def measure(data: Dataset, queries: int, rounds: int = ROUNDS, measuring: int = MEASURING) -> None:
    """Print and keep the table."""
    section = Section(f"{data.name}: target accuracy", COLUMNS)
    for organization in (pythia.PARTITIONS, pythia.GRAPH):
        with pythia.measuring(measuring), pythia.database() as db:
            pgvector.fill(db, "items", data.base, {})
            pythia.build(db, "items", organization)
            pythia.rest(db)
            exam = Exam(organization, Churn(db, "items", data.base), data.queries[:queries], section)
            exam.take(db, "new")
            for _ in range(rounds):
                exam.churn.round()
            exam.take(db, f"{rounds} rounds later, at once", costs=False)
            section.raw[f"{organization}: seconds until the changes were taken over"] = pythia.settle(db, "items")  # fmt: skip
            section.raw[f"{organization}: seconds until the engine was at rest"] = pythia.rest(db)
            exam.take(db, f"{rounds} rounds later, at rest")
    section.finish()


@dataclass(frozen=True)
class Exam:
    """One kind of index, the table under it, fresh queries, and where the results go."""

    organization: str
    churn: Churn
    queries: Vectors
    section: Section

    def take(self, db: pythiadb.Connection, state: str, *, costs: bool = True) -> None:
        """Ask for the targets on the rows that are there now, and with `costs` for fixed settings too; a line for each target."""
        truth = exact(self.churn.vectors, self.queries)
        fixed, targets = pythia.sweep(self.organization) if costs else (), [str(target) for target in TARGETS]
        ways = [pythia.nearest("items", how) for how in (*fixed, *targets)]
        seen = ask(pythia.conninfo(db), ways, Questions(self.queries))
        seen = [replace(one, answers=self.churn.places(one.answers)) for one in seen]
        found = curve(self.organization, fixed, seen[: len(fixed)], truth)
        self.section.raw[f"{self.organization}, {state}: fixed"] = found.points
        for target, one in zip(TARGETS, seen[len(fixed) :], strict=True):
            p, cost = point(str(target), one, truth), found.cost(target / 100)
            self.section.add(
                self.organization.lower(), state, target, p.recall.mean, p.recall.p5, p.p50, p.p50 / cost if cost else "",
                f"≥ {(target - 1) / 100:.2f}, ≤ 1.2",
            )  # fmt: skip
            self.section.raw[f"{self.organization}, {state}: {target}"] = p
