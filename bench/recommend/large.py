"""A file of 32 million ratings in MovieLens' format: the memory of reading it and of training, and the time of a pass.

Both happen in a process of its own, `python -m bench.recommend.large FILE`, whose highest resident memory the kernel keeps.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.common import REPOSITORY, machine, report
from bench.recommend.data import ratings_file
from pythiadb.recommend.ratings import read_ratings
from pythiadb.recommend.training import Settings, train

TARGET = 4.0  # GiB
TIMEOUT = 3600  # seconds
COLUMNS = ["measure", "unit", "value", "target"]


def measure(rows: int) -> None:
    """Print and keep the table."""
    facts = machine()
    facts["versions"] |= {name: version(name) for name in ("torch", "pyarrow")}
    file = ratings_file(rows)
    done = subprocess.run(
        [sys.executable, "-m", "bench.recommend.large", str(file)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT,
        cwd=REPOSITORY,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    epoch = found["epoch"]
    table = [
        ["size of the file", "GiB", f"{file.stat().st_size / 2**30:.2f}", ""],
        ["ratings, users, items", "", f"{found['ratings']:,}, {found['users']:,}, {found['items']:,}", ""],
        ["reading", "s", f"{found['read_s']:.1f}", ""],
        ["memory after reading, highest", "GiB", f"{found['read_gib']:.2f}", f"≤ {TARGET:g}"],
        ["memory with training, highest", "GiB", f"{found['all_gib']:.2f}", f"≤ {TARGET:g}"],
        ["one pass alone", "s", f"{found['trained'] / epoch['ratings_per_second']:.1f}", ""],
        ["one pass with its errors", "s", f"{epoch['seconds']:.1f}", ""],
        ["training", "ratings/s", f"{epoch['ratings_per_second']:,.0f}", ""],
    ]
    report("recommend-large", COLUMNS, table, found, facts)


def run(file: Path) -> dict[str, Any]:
    """Read the file and train for one pass with the usual settings."""
    started = time.perf_counter()
    ratings = read_ratings(file)
    read_s = time.perf_counter() - started
    read_gib = _highest_memory()
    settings = Settings(max_epochs=1)
    epoch = train(ratings, settings).history[0]
    return {
        "ratings": len(ratings),
        "users": len(ratings.user_ids),
        "items": len(ratings.item_ids),
        "trained": round(len(ratings) * (1 - settings.validation_share)),
        "read_s": read_s,
        "read_gib": read_gib,
        "all_gib": _highest_memory(),
        "epoch": asdict(epoch),
    }


def _highest_memory() -> float:
    """Return the highest resident memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]))))
