"""Recall and speed of the whole table's search: Pythia's two kinds of index, pgvector's graph, and the bare library."""

from __future__ import annotations

from dataclasses import dataclass

import pythiadb
from bench.search import bare, pgvector, pythia
from bench.search.clients import Questions, Way, ask
from bench.search.curves import Curve, curve, point
from bench.search.data import Dataset
from bench.search.load import Load, fill, load
from bench.search.output import Section
from bench.search.truth import Truth, exact

RECALLS = (0.95, 0.99)
ACCURACIES = (80, 85, 90, 92, 94, 95, 96, 97, 98, 99)  # that Pythia is asked for
CLIENTS = (1, 4, 16)
EXACT_QUESTIONS = 20
GUIDES = {"m=16, ef_construction=64": (16, 64), "m=24, ef_construction=200": (24, 200)}
KINDS = {"by_graph": pythia.GRAPH, "by_partitions": pythia.PARTITIONS}


@dataclass(frozen=True)
class Size:
    """How much is measured: queries of a sweep, seconds and rounds of each load, both of pgvector's guides or the first."""

    queries: int = 1000
    seconds: int = 5
    rounds: int = 3
    guides: int = 2


def measure(data: Dataset, size: Size) -> None:
    """Print and keep four tables: builds, searches by one client, by many, and exact ones."""
    queries = data.queries[: size.queries]
    guides = dict(list(GUIDES.items())[: size.guides])
    with pythia.database() as db:
        builds = _build(db, data, guides)
        limits = [bare.partitions(data.base), bare.graph(data.base)]
        for limit in limits:
            builds.add(limit.name, limit.seconds, "", "", "")
        builds.finish()
        pythia.rest(db)  # what the indexes find at which cost has been measured then
        ways = {f"Pythia, {kind.lower()}": _pythia_ways(table) for table, kind in KINDS.items()}
        ways |= {f"pgvector, {name}": _pgvector_ways(f"hnsw_{n}") for n, name in enumerate(guides)}
        contest = Contest(db, data, ways, limits, Questions(queries), exact(data.base, queries))
        _loads(contest, _sweep(contest), size)
        _exact(contest)


@dataclass(frozen=True)
class Contest:
    """Who is asked what: the database, the ways through SQL with all their settings, the bare libraries, queries and truth."""

    db: pythiadb.Connection
    data: Dataset
    ways: dict[str, list[Way]]
    limits: list[bare.Bare]
    questions: Questions
    truth: Truth


def _build(db: pythiadb.Connection, data: Dataset, guides: dict[str, tuple[int, int]]) -> Section:
    section = Section(f"{data.name}: builds", ["index", "seconds", "÷ pgvector", "MB", "target"])
    seconds: dict[str, float] = {}
    for n, (name, (m, ef)) in enumerate(guides.items()):
        pgvector.fill(db, f"hnsw_{n}", data.base, {})
        taken = seconds[f"pgvector, {name}"] = pgvector.build(db, f"hnsw_{n}", m, ef)
        pgvector.warm(db, f"hnsw_{n}")
        row = db.execute(f"SELECT pg_relation_size('hnsw_{n}_hnsw') / 1e6").fetchone()
        assert row is not None
        section.add(f"pgvector, {name}", taken, taken / next(iter(seconds.values())), float(row[0]), "")
    for table, kind in KINDS.items():
        pgvector.fill(db, table, data.base, {})
        taken = seconds[f"Pythia, {kind.lower()}"] = pythia.build(db, table, kind)
        target = "≤ 0.2" if kind == pythia.PARTITIONS else "≤ 0.6"
        section.add(f"Pythia, {kind.lower()}", taken, taken / next(iter(seconds.values())), "", target)
    section.raw["seconds"] = seconds
    return section


def _pythia_ways(table: str) -> list[Way]:
    return [pythia.nearest(table, str(accuracy)) for accuracy in ACCURACIES]


def _pgvector_ways(table: str) -> list[Way]:
    return [pgvector.nearest(table, ef) for ef in pgvector.EF_SEARCH]


def _sweep(contest: Contest) -> dict[str, Curve]:
    """Ask every way with every setting, and print what each wanted recall costs."""
    section = Section(
        f"{contest.data.name}: one client",
        ["way", "recall@10", "p50 ms", "÷ pgvector", "p95 ms there", "recall p5 there", "target"],
    )
    names = [(name, way.name) for name, tried in contest.ways.items() for way in tried]
    names += [(limit.name, setting) for limit in contest.limits for setting, _ in limit.settings]
    ways = [way for tried in contest.ways.values() for way in tried]
    searches = [search for limit in contest.limits for _, search in limit.settings]
    seen = ask(pythia.conninfo(contest.db), [*ways, pgvector.no_search()], contest.questions, searches)
    least = seen.pop(len(ways))
    curves = {}
    for name in dict.fromkeys(name for name, _ in names):
        mine = [(setting, p) for (owner, setting), p in zip(names, seen, strict=True) if owner == name]
        curves[name] = curve(name, [s for s, _ in mine], [p for _, p in mine], contest.truth)
    for recall in RECALLS:
        best = _best_pgvector(curves, recall)
        for name, found in curves.items():
            cost, there = found.cost(recall), found.cheapest(recall)
            section.add(
                name, f"{recall:.2f}", cost, cost / best if cost and best else "",
                there.p95 if there else "", there.recall.p5 if there else "",
                "≤ 0.35, one of both" if name.startswith("Pythia") else "",
            )  # fmt: skip
    section.add("no search", "", least.p50, "", least.p95, "", "the limit")
    section.raw = {name: found.points for name, found in curves.items()} | {"no search": least}
    section.finish()
    return curves


def _best_pgvector(curves: dict[str, Curve], recall: float) -> float | None:
    """Return what pgvector needs for a recall with the better of its settings: the fairest to compare with."""
    costs = [c.cost(recall) for name, c in curves.items() if name.startswith("pgvector")]
    return min((cost for cost in costs if cost is not None), default=None)


def _loads(contest: Contest, curves: dict[str, Curve], size: Size) -> None:
    """Let 1, 4 and 16 sessions ask with the cheapest setting that reached each recall; the ways take turns."""
    fill(contest.db, contest.questions.vectors)
    section = Section(
        f"{contest.data.name}: clients",
        ["way", "recall@10 ≥", "recall", "clients", "QPS", "÷ pgvector", "p50 ms", "p95 ms", "target"],
    )
    for recall in RECALLS:
        chosen: dict[str, tuple[Way, float | str]] = {}
        for name, tried in contest.ways.items():
            there = curves[name].cheapest(recall)
            if there is not None:
                chosen[name] = (next(way for way in tried if way.name == there.setting), there.recall.mean)
        chosen["no search"] = pgvector.no_search(), ""
        for clients in CLIENTS:
            found: dict[str, list[Load]] = {name: [] for name in chosen}
            for _ in range(size.rounds):
                for name, (way, _) in chosen.items():
                    found[name].append(load(contest.db, way, clients, size.seconds))
            middle = {
                name: sorted(loads, key=lambda one: one.qps)[len(loads) // 2] for name, loads in found.items()
            }
            best = max((one.qps for name, one in middle.items() if name.startswith("pgvector")), default=None)
            for name, one in middle.items():
                section.add(
                    name, f"{recall:.2f}", chosen[name][1], clients, one.qps, one.qps / best if best else "", one.p50, one.p95,
                    _load_target(name, clients),
                )  # fmt: skip
            section.raw[f"{recall} {clients}"] = found
    section.finish()


def _load_target(name: str, clients: int) -> str:
    if name == "no search":
        return "the limit"
    return "≥ 3, one of both" if name.startswith("Pythia") and clients == max(CLIENTS) else ""


def _exact(contest: Contest) -> None:
    """Compare exact answers: pgvector's scan in its four variants, Pythia's, and the bare library."""
    section = Section(
        f"{contest.data.name}: exact", ["way", "recall", "p50 ms", "÷ pgvector's best", "target"]
    )
    queries = contest.data.queries[:EXACT_QUESTIONS]
    truth = exact(contest.data.base, queries)
    scans = [pgvector.scan("hnsw_0", operator, workers) for operator in ("<=>", "<#>") for workers in (0, 1)]
    ours = [pythia.exact(table) for table in KINDS]
    limit = bare.exact(contest.data.base)
    seen = ask(pythia.conninfo(contest.db), [*scans, *ours], Questions(queries), [limit.settings[0][1]])
    names = [way.name for way in scans] + [f"{way.name}, {t}" for way, t in zip(ours, KINDS, strict=True)]
    points = [point(name, one, truth) for name, one in zip([*names, limit.name], seen, strict=True)]
    best = min(p.p50 for p in points[: len(scans)])
    for p in points:
        section.add(
            p.setting, p.recall.mean, p.p50, p.p50 / best, "≤ 0.2" if p.setting.startswith("Pythia") else ""
        )
    section.raw = {p.setting: p for p in points}
    section.finish()
