"""What the supervisor tells a worker. Apart, because the supervisor must not import what a worker needs to run models."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import orjson


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What the supervisor tells a worker on its command line."""

    number: int
    folder: str
    log: str
    conninfo: str
    account: str
    uid: int
    gid: int
    settings: dict[str, int]


def command_line(config: WorkerConfig, control: int, python: str) -> list[str]:
    """Return the command that starts a worker."""
    return [
        python, "-m", "pythiadb.engine.worker", "--control", str(control), "--data", config.folder,
        "--config", orjson.dumps(asdict(config)).decode(),
    ]  # fmt: skip
