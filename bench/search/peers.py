"""Other libraries beside, as far as they install: sqlite-vec, DuckDB VSS, LanceDB, Chroma. Each runs in a process of its own.

They are installed into a virtual environment of their own under .cache, with the pip of this one; what does not install is
named with the reason. None of them is a server: their answers come without a connection, which is to their advantage.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import REPOSITORY
from bench.search.clients import Pass
from bench.search.curves import Curve, curve
from bench.search.data import Dataset
from bench.search.output import Section
from bench.search.truth import exact

HOME = REPOSITORY / ".cache" / "peers"
WORKER = Path(__file__).with_name("peer_worker.py")
PACKAGES = {
    "sqlite-vec": ("sqlite-vec==0.1.9",),
    "duckdb": ("duckdb==1.5.5", "duckdb-extension-vss==1.5.5"),
    "lancedb": ("lancedb", "pyarrow"),
    "chroma": ("chromadb",),
}
RECALLS = (0.95, 0.99)
TIMEOUT = 1800  # seconds for a peer's build and searches
COLUMNS = ["peer", "build s", "recall@10", "p50 ms", "best recall reached", "p50 ms there"]


def measure(data: Dataset, queries: int) -> None:
    """Print and keep the table of the peers that could be installed."""
    section = Section(f"{data.name}: peers", COLUMNS)
    truth = exact(data.base, data.queries[:queries])
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        np.save(folder / "base.npy", data.base)
        np.save(folder / "queries.npy", data.queries[:queries])
        for peer, packages in PACKAGES.items():
            try:
                content = _run(environment(peer, packages), peer, folder)
            except (subprocess.SubprocessError, OSError) as error:
                section.add(peer, "", "not measured", _reason(error), "", "")
                continue
            passes = [Pass(one["answers"], one["times"]) for one in content["settings"]]
            found = curve(peer, [one["name"] for one in content["settings"]], passes, truth)
            section.raw[peer] = {
                "build_s": content["build_s"],
                "version": content["version"],
                "points": found.points,
            }
            _lines(section, found, content)
    section.finish()


def _lines(section: Section, found: Curve, content: dict[str, Any]) -> None:
    best = max(found.points, key=lambda p: p.recall.mean)
    for recall in RECALLS:
        section.add(
            f"{found.name} {content['version']}", content["build_s"], f"{recall:.2f}", found.cost(recall),
            best.recall.mean, best.p50,
        )  # fmt: skip


def environment(peer: str, packages: tuple[str, ...]) -> Path:
    """Return the Python of a peer's environment, made when it is not there."""
    folder = HOME / peer
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run(
            [sys.executable, "-m", "venv", "--clear", str(folder)], check=True, capture_output=True
        )
        command = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "numpy",
            *packages,
        ]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT)
        (folder / "complete").touch()
    return python


def _run(python: Path, peer: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [str(python), str(WORKER), peer, str(folder)],
        check=True,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _reason(error: Exception) -> str:
    output = getattr(error, "stderr", None)
    lines = str(output).strip().splitlines() if output else [str(error)]
    return lines[-1][:120]
