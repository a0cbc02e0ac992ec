"""`pythia doctor`: finds what is wrong and says what to do."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import click
import psycopg
from rich.text import Text

from pythiadb.cli.display import console, print_json, size
from pythiadb.cli.target import Target, current_target, target_options
from pythiadb.errors import PythiaError
from pythiadb.postgres import install
from pythiadb.postgres.binaries import bin_dir, major_version

OK, WARNING, FAILED = "ok", "warning", "failed"
LOW_DISK = 2 << 30  # bytes; an embedding model and its database need about as much


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, with the next step when it is not ok."""

    check: str
    state: str
    text: str
    advice: str | None = None


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@target_options
def doctor(as_json: bool) -> None:
    """Check machine, server, schema, engine and models. Exit status 1 when something failed."""
    findings = list(examine(current_target()))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            _show(finding)
    if any(f.state == FAILED for f in findings):
        click.get_current_context().exit(1)


def _show(finding: Finding) -> None:
    style = {OK: "green", WARNING: "yellow", FAILED: "bold red"}[finding.state]
    console.print(
        Text.assemble((f"{finding.state:8}", style), f"{finding.check:22}", finding.text), soft_wrap=True
    )
    if finding.advice:
        console.print(Text(f"{'':30}{finding.advice}", style="dim"), soft_wrap=True)


def examine(target: Target) -> Iterator[Finding]:
    """Yield the findings in the order in which things depend on each other; stop where nothing more can be seen."""
    yield Finding("python", OK, f"{platform.python_version()} at {sys.executable}")
    try:
        yield Finding("postgresql programs", OK, f"PostgreSQL {major_version()} in {bin_dir()}")
    except PythiaError as error:
        yield Finding("postgresql programs", FAILED, error.message, error.hint)
        return
    if target.data is not None:
        free = shutil.disk_usage(target.data if target.data.exists() else target.data.parent).free
        yield Finding(
            "disk",
            OK if free > LOW_DISK else WARNING,
            f"{size(free)} free",
            None if free > LOW_DISK else "Make room.",
        )
    try:
        connection = target.connect(autocommit=True)
    except PythiaError as error:
        yield Finding("connection", FAILED, error.message, error.hint or error.detail)
        return
    except (psycopg.Error, click.UsageError) as error:
        yield Finding("connection", FAILED, str(error).strip())
        return
    with connection:
        yield Finding(
            "connection",
            OK,
            f"PostgreSQL {connection.info.parameter_status('server_version')}, {target.database}",
        )
        for check in (_schema, _dblink, _engine, _orphans, _models):
            yield from _guarded(check, connection)


def _guarded(check: Callable[[Any], Iterator[Finding]], connection: Any) -> Iterator[Finding]:
    try:
        yield from check(connection)
    except psycopg.Error as error:
        yield Finding(
            check.__name__.strip("_"),
            FAILED,
            error.diag.message_primary or str(error),
            error.diag.message_hint,
        )


def _schema(connection: Any) -> Iterator[Finding]:
    yield Finding("schema", OK, f"version {install.latest_version()}")
    path = connection.execute("SHOW search_path").fetchone()[0]
    if "pythia" not in path:
        yield Finding(
            "search_path",
            WARNING,
            path,
            f"ALTER DATABASE {connection.info.dbname} SET search_path = {path}, pythia;",
        )


def _dblink(connection: Any) -> Iterator[Finding]:
    """A dblink that everybody may call lets users of one session open connections under our name."""
    row = connection.execute(
        "SELECT bool_or(has_function_privilege('public', p.oid, 'EXECUTE')), min(n.nspname) FROM pg_proc p "
        "JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e' "
        "JOIN pg_extension e ON e.oid = d.refobjid WHERE e.extname = 'dblink' AND has_schema_privilege('public', n.oid, 'USAGE')"
    ).fetchone()
    if row[0]:
        yield Finding(
            "dblink",
            WARNING,
            "every role may call dblink",
            f"REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA {row[1]} FROM PUBLIC;",
        )
    else:
        yield Finding("dblink", OK, "closed to PUBLIC")


def _engine(connection: Any) -> Iterator[Finding]:
    started = time.perf_counter()
    connection.execute("SELECT pythia.engine_ping()")
    first = time.perf_counter()
    connection.execute("SELECT pythia.engine_ping()")
    yield Finding(
        "engine",
        OK,
        f"answers in {(time.perf_counter() - first) * 1000:.1f} ms, first call {(first - started) * 1000:.1f} ms",
    )


def _orphans(connection: Any) -> Iterator[Finding]:
    row = connection.execute(
        "SELECT count(*) FROM pythia.model m WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = m.relation)"
    ).fetchone()
    if row[0]:
        yield Finding(
            "orphaned models",
            WARNING,
            f"{row[0]} model(s) whose view was dropped",
            "SELECT pythia.remove_orphaned_models();",
        )


def _models(connection: Any) -> Iterator[Finding]:
    """Embed a text with each model that takes one, name the others."""
    models = connection.execute(
        "SELECT m.relation::text, m.function, m.spec #>> '{attributes,0,type}', m.spec #>> '{attributes,0,name}' "
        "FROM pythia.model m JOIN pg_class c ON c.oid = m.relation "
        "WHERE has_table_privilege(m.relation, 'SELECT') ORDER BY 1"
    ).fetchall()
    for name, function, kind, attribute in models:
        if function != "embedding" or kind != "text":
            yield Finding(f"model {name}", OK, f"{function}, not tried")
            continue
        started = time.perf_counter()
        row = connection.execute(
            "SELECT pythia.vector_dims(pythia.vector_embedding(%s::regclass, 'probe', %s))", (name, attribute)
        ).fetchone()
        yield Finding(
            f"model {name}", OK, f"{row[0]} dimensions in {(time.perf_counter() - started) * 1000:.1f} ms"
        )
    if not models:
        yield Finding("models", WARNING, "no model is loaded", "pythia model load PATH NAME")
