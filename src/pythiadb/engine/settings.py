"""The engine's settings: one table with defaults, units and limits. Everything that can wait or grow has its bound here.

Each may be set by an environment variable, PYTHIA_ENGINE_ and the name in upper case, or by `pythia engine run --set
name=value`. docs/reference/settings.md is checked against this table.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pythiadb.engine.limits import LEAST, machine_memory
from pythiadb.errors import InvalidParameter

ENVIRONMENT_PREFIX = "PYTHIA_ENGINE_"


@dataclass(frozen=True, slots=True)
class Setting:
    """One whole-number setting; 0 may stand for "choose by the machine"."""

    name: str
    default: int
    minimum: int
    maximum: int
    help: str


SETTINGS = (
    Setting("workers", 0, 0, 256, "worker processes; 0: one for every eight cores"),
    Setting(
        "threads",
        0,
        0,
        256,
        "threads a model run or an exact search may use in one worker; 0: the cores divided by the workers",
    ),
    Setting(
        "max_message_bytes",
        268_435_456,
        65_536,
        1_073_741_824,
        "largest command that a backend may send, in bytes",
    ),
    Setting(
        "max_input_bytes", 4_194_304, 1_024, 268_435_456, "largest single text, file or picture, in bytes"
    ),
    Setting(
        "max_queued_rows",
        262_144,
        1,
        100_000_000,
        "rows that may wait in one worker; more is refused at once",
    ),
    Setting(
        "max_run_seconds",
        30,
        1,
        86_400,
        "time that one run of a model may take, in seconds; then it is stopped",
    ),
    Setting(
        "worker_memory_bytes",
        0,
        0,
        1 << 50,
        "memory that a worker may use beside its libraries and shared weights, in bytes (128 MiB at least); 0: half of the machine's, divided by the workers",
    ),
    Setting(
        "quarantine_seconds",
        60,
        1,
        86_400,
        "time for which a model that crashed a worker is refused, in seconds",
    ),
    Setting(
        "probe_seconds",
        60,
        1,
        86_400,
        "time that checking a model, or writing its shared weights, may take, in seconds",
    ),
    Setting("max_connections", 1_000, 1, 100_000, "connections a worker accepts"),
    Setting("max_models", 16, 1, 1_000, "models a worker keeps open; the least recently used one is closed"),
    Setting("max_model_bytes", 17_179_869_184, 1_048_576, 1 << 40, "largest model package, in bytes"),
    Setting(
        "cache_bytes",
        34_359_738_368,
        1_048_576,
        1 << 50,
        "disk space of the cache; least recently used packages go first",
    ),
    Setting(
        "index_poll_ms",
        200,
        10,
        60_000,
        "time between looks at the journals of vector indexes, in milliseconds",
    ),
    Setting(
        "index_retain_seconds",
        600,
        1,
        86_400,
        "time for which the files of a vector index's older versions stay, in seconds",
    ),
    Setting(
        "index_measure_seconds",
        60,
        1,
        86_400,
        "time that measuring the accuracy of a vector index takes, in the background, in seconds",
    ),
    Setting(
        "index_captured_queries",
        1_000,
        0,
        10_000,
        "query vectors of users that are kept for each vector index, a sample, to measure accuracy with; 0: none",
    ),
    Setting("index_captured_days", 7, 1, 3_650, "time for which query vectors of users are kept, in days"),
    Setting(
        "max_index_versions",
        64,
        1,
        100_000,
        "versions of vector indexes that a worker keeps open; the least recently used one is closed",
    ),
    Setting(
        "vector_memory_bytes",
        0,
        0,
        1 << 50,
        "memory that vector indexes may take together, in bytes; 0: three quarters of the machine's",
    ),
    Setting("signature_seconds", 60, 1, 3_600, "age at which a signed command is refused, in seconds"),
    Setting(
        "linger_seconds",
        2,
        0,
        86_400,
        "time an embedded database stays up after its last user left, in seconds",
    ),
    Setting(
        "log_bytes",
        67_108_864,
        65_536,
        1 << 40,
        "size at which the log file is rotated (one old file is kept), in bytes",
    ),
)

_BY_NAME = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True)
class Settings:
    """The values in force; the fields are those of SETTINGS."""

    workers: int
    threads: int
    max_message_bytes: int
    max_input_bytes: int
    max_queued_rows: int
    max_run_seconds: int
    worker_memory_bytes: int
    quarantine_seconds: int
    probe_seconds: int
    max_connections: int
    max_models: int
    max_model_bytes: int
    cache_bytes: int
    index_poll_ms: int
    index_retain_seconds: int
    index_measure_seconds: int
    index_captured_queries: int
    index_captured_days: int
    max_index_versions: int
    vector_memory_bytes: int
    signature_seconds: int
    linger_seconds: int
    log_bytes: int


def parse(name: str, text: str) -> int:
    """Return the checked value of a setting. Raises InvalidParameter."""
    setting = _BY_NAME.get(name)
    if setting is None:
        raise InvalidParameter(
            f'unrecognized engine setting "{name}"', hint=f"Settings: {', '.join(_BY_NAME)}."
        )
    try:
        value = int(text)
    except ValueError:
        raise InvalidParameter(f'invalid value for engine setting "{name}": "{text}"') from None
    if not setting.minimum <= value <= setting.maximum:
        raise InvalidParameter(
            f'{value} is outside the valid range for engine setting "{name}" ({setting.minimum} .. {setting.maximum})'
        )
    return value


def load(overrides: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings: overrides, else the environment, else the defaults. Raises InvalidParameter."""
    values = {s.name: s.default for s in SETTINGS}
    for setting in SETTINGS:
        text = environment.get(ENVIRONMENT_PREFIX + setting.name.upper())
        if text is not None:
            values[setting.name] = parse(setting.name, text)
    for name, text in overrides.items():
        values[name] = parse(name, text)
    cores = len(os.sched_getaffinity(0))
    values["workers"] = values["workers"] or max(1, cores // 8)
    values["threads"] = values["threads"] or max(1, cores // values["workers"])
    values["worker_memory_bytes"] = max(
        LEAST, values["worker_memory_bytes"] or machine_memory() // 2 // values["workers"]
    )
    values["vector_memory_bytes"] = values["vector_memory_bytes"] or machine_memory() // 4 * 3
    return Settings(**values)
