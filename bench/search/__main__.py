"""Vector search through SQL, measured: `python -m bench.search [--only SECTION,…] [--quick] [--peers]`, `make bench-search`.

Two sets: GloVe word vectors (340,479 × 100) and WordNet's glosses embedded with MiniLM (116,791 × 384). A thousand queries of
each are never in the table. Recall is counted by distance against an exact search, and stands beside every speed; all that is
compared is measured in the same run, in turns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bench.common import asked_sections
from bench.search import data, filters, fresh, peers, pythia, reopen, speed, targets, writes


@dataclass(frozen=True)
class Plan:
    """How much is measured: rows of a set (None: all), queries, and the sizes of some sections."""

    rows: int | None = None
    queries: int = 1000
    filter_queries: int = 100
    rounds: int = targets.ROUNDS
    measuring: int = targets.MEASURING
    speed: speed.Size = field(default_factory=speed.Size)
    writes: writes.Size = field(default_factory=writes.Size)


QUICK = Plan(
    rows=20_000,
    queries=100,
    filter_queries=10,
    rounds=2,
    measuring=1,
    speed=speed.Size(queries=100, seconds=1, rounds=1, guides=1),
    writes=writes.Size(
        updated=1000, before=10_000, single=50, bulk=5000, theirs=100, rounds=1, quick_rounds=2
    ),
)
SECTIONS: dict[str, Callable[[Plan], None]] = {
    "glove": lambda plan: speed.measure(data.glove(plan.rows), plan.speed),
    "wordnet": lambda plan: speed.measure(data.wordnet(plan.rows), plan.speed),
    "filters": lambda plan: filters.measure(data.wordnet(plan.rows), plan.filter_queries),
    "writes": lambda plan: writes.measure(data.wordnet(plan.rows), data.glove(plan.rows), plan.writes),
    "fresh": lambda plan: fresh.measure(data.glove(plan.rows), plan.writes),
    "glove-targets": lambda plan: targets.measure(
        data.glove(plan.rows), plan.queries, plan.rounds, plan.measuring
    ),
    "wordnet-targets": lambda plan: targets.measure(
        data.wordnet(plan.rows), plan.queries, plan.rounds, plan.measuring
    ),
    "restart": lambda plan: reopen.measure(data.glove(plan.rows)),
}
PEERS: dict[str, Callable[[Plan], None]] = {
    "glove-peers": lambda plan: peers.measure(data.glove(plan.rows), plan.queries),
    "wordnet-peers": lambda plan: peers.measure(data.wordnet(plan.rows), plan.queries),
    "filters-graph": lambda plan: filters.measure(
        data.wordnet(plan.rows), plan.filter_queries, kind=pythia.GRAPH
    ),
    "filters-pgvector": lambda plan: filters.measure(
        data.wordnet(plan.rows), plan.filter_queries, beside=True
    ),
}


def main() -> None:
    """Run the sections that are asked for."""
    names, given = asked_sections("python -m bench.search", __doc__, SECTIONS, PEERS)
    known = SECTIONS | PEERS
    for name in names:
        known[name](QUICK if given.quick else Plan())


if __name__ == "__main__":
    main()
