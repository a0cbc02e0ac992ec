"""What the supervisor tells the processes of the engine. Apart, because it must not import what they need to run models."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import orjson


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What is the same for all workers; on the command line of the template process. `run` names this run of the engine."""

    folder: str
    log: str
    conninfo: str
    account: str
    uid: int
    gid: int
    run: str
    settings: dict[str, int]


@dataclass(frozen=True, slots=True)
class Birth:
    """What one worker is told when it is forked: its number, and which packages to refuse (seconds) or to try out first."""

    number: int
    quarantine: dict[str, float] = field(default_factory=dict)
    suspects: list[str] = field(default_factory=list)

    def dump(self) -> bytes:
        return orjson.dumps(asdict(self))

    @classmethod
    def load(cls, data: bytes) -> Birth:
        return cls(**orjson.loads(data))


def command_line(config: WorkerConfig, control: int, python: str) -> list[str]:
    """Return the command that starts the template process."""
    return [
        python, "-m", "pythiadb.engine.template", "--control", str(control), "--data", config.folder,
        "--config", orjson.dumps(asdict(config)).decode(),
    ]  # fmt: skip
