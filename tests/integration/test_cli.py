"""The command line, as a shell would run it: output, exit codes, errors worded as PostgreSQL's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from command_line import ok, pythia
from shop_models import recommender

import pythiadb
from pythiadb.postgres import cluster, install
from pythiadb.postgres.server import Server
from tests.unit.models.small_models import (
    string_graph,
)


def test_help_and_version() -> None:
    assert ok("--version") == f"pythia, version {pythiadb.__version__}\n"
    for command in (
        "start",
        "stop",
        "status",
        "install",
        "upgrade",
        "uninstall",
        "doctor",
        "sql",
        "model",
        "engine",
    ):
        assert command in ok("--help")
        assert ok(command, "--help").startswith("Usage:")


def test_the_program_is_installed_and_leaves_with_the_right_status(data: tuple[str, str]) -> None:
    """`python -m pythiadb.cli` in a process of its own, with an error: no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "pythiadb.cli", "sql", *data, "-c", "SELECT nothing"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == 'ERROR:  column "nothing" does not exist\n'


# Life ---------------------------------------------------------------------------------------------------------------------


def test_start_status_stop(make_directory: Callable[[], Path]) -> None:
    shop = make_directory() / "shop"
    data = ("--data", str(shop))
    assert pythia("status", *data).exit_code == 3
    assert pythia("stop", *data).exit_code == 1
    started = ok("start", *data)
    assert f"running: {shop}" in started.replace("\n", "")
    conninfo = re.search(r'psql "(.*)"', started)
    assert conninfo is not None
    with psycopg.connect(conninfo[1]) as connection:
        assert connection.execute("SELECT pythia.engine_ping()").fetchone() == ("pong",)
    found = json.loads(ok("status", *data, "--json"))
    assert found["exists"]
    assert found["server_pid"]
    assert found["engine_pid"]
    assert found["keep_running"] is True
    assert found["schema_version"] == install.latest_version()
    assert found["models"] == 0
    assert "server_pid" in ok("status", *data)
    assert ok("stop", *data) == "stopped\n"
    assert ok("stop", *data) == "was not running\n"
    stopped = pythia("status", *data, "--json")
    assert stopped.exit_code == 3
    assert json.loads(stopped.stdout)["server_pid"] is None


@pytest.mark.parametrize("command", [("sql", "-c", "SELECT 1"), ("model", "list"), ("engine", "status")])
def test_where_there_is_no_database(tmp_path: Path, command: tuple[str, ...]) -> None:
    result = pythia(*command, "--data", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "there is no database in" in result.stderr
    assert "pythia start --data" in result.stderr
    assert not (tmp_path / "nowhere").exists()


def test_a_target_is_needed_and_only_one() -> None:
    for arguments in ((), ("--data", "x", "--dsn", "postgresql://y")):
        result = pythia("sql", "-c", "SELECT 1", *arguments)
        assert result.exit_code == 2
        assert "Give either --data DIRECTORY or --dsn URL." in result.stderr
    assert pythia("start", "--dsn", "postgresql://y").exit_code == 2


def test_dsn_takes_no_directory(tmp_path: Path) -> None:
    result = pythia("sql", "-c", "SELECT 1", "--dsn", tmp_path / "shop")
    assert result.exit_code == 2
    assert "A directory goes with --data." in result.stderr
    assert not (tmp_path / "shop").exists()


def test_directory_and_server_whose_names_look_alike(
    db: pythiadb.Connection, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--data is always a directory, whatever its name; --dsn takes all that libpq does."""
    monkeypatch.chdir(tmp_path)
    Path("host=x").symlink_to(shop)
    for target in (("--data", "host=x"), ("--dsn", f"host={db.info.host} user=postgres")):
        assert json.loads(ok("sql", "--json", "-c", "SELECT 1 AS one", *target)) == [{"one": 1}]


def test_target_from_the_environment(data: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHIA_DATA", data[1])
    assert json.loads(ok("sql", "--json", "-c", "SELECT 1 AS one")) == [{"one": 1}]


def test_server_that_is_not_there() -> None:
    result = pythia("sql", "--dsn", "postgresql:///x?host=/nonexistent", "-c", "SELECT 1")
    assert result.exit_code == 1
    assert result.stderr.startswith("ERROR:  ")


# SQL ----------------------------------------------------------------------------------------------------------------------


def test_sql_as_table_and_as_json(data: tuple[str, str]) -> None:
    statement = "SELECT 1 AS n, NULL AS nothing, true AS yes, 'ä' AS text, '[1,2,3,4,5]'::vector AS v"
    table = ok("sql", "-c", statement, *data)
    assert "[1, 2, 3, 4, … 5 dimensions]" in table
    assert table.endswith("(1 row)\n")
    assert json.loads(ok("sql", "--json", "-c", statement, *data)) == [
        {"n": 1, "nothing": None, "yes": True, "text": "ä", "v": [1, 2, 3, 4, 5]}
    ]
    assert ok("sql", "-c", "SELECT '[red]not markup[/red]' AS x", *data).count("[red]not markup[/red]") == 1


def test_several_commands_stop_at_the_first_error(data: tuple[str, str]) -> None:
    result = pythia("sql", "-c", "SELECT 1 AS first", "-c", "SELECT 1/0", "-c", "SELECT 3 AS third", *data)
    assert result.exit_code == 1
    assert "first" in result.stdout
    assert "third" not in result.stdout
    assert result.stderr == "ERROR:  division by zero\n"


def test_error_with_detail_and_hint(data: tuple[str, str]) -> None:
    result = pythia("sql", "-c", "SELECT vector_embedding('pg_class', 'a')", *data)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        'ERROR:  "pg_class" is not a model',
        "HINT:  The models that you may use: SELECT relation FROM pythia.model;",
    ]
    syntax = pythia("sql", "-c", "SELECT VECTOR_EMBEDDING(minilm USING)", *data)
    assert syntax.exit_code == 1
    assert syntax.stderr.startswith("ERROR:  ")
    assert "\nDETAIL:  " in syntax.stderr


def test_script_from_a_file_and_from_standard_input(data: tuple[str, str], tmp_path: Path) -> None:
    script = "SELECT 'a;b' AS one;\n-- a note; with a semicolon\nSELECT $$x;y$$ AS two\n"
    (tmp_path / "script.sql").write_text(script)
    from_file = ok("sql", "--json", "-f", tmp_path / "script.sql", *data)
    assert ok("sql", "--json", *data, input=script) == from_file
    assert '"one": "a;b"' in from_file
    assert '"two": "x;y"' in from_file
    assert ok("sql", *data, input="") == ""


def test_oracle_dialect(data: tuple[str, str]) -> None:
    rows = json.loads(
        ok("sql", "--dialect", "oracle", "--json", "-c", "SELECT NVL(NULL, 5) AS n FROM DUAL", *data)
    )
    assert rows == [{"n": 5}]


def test_translate_prints_and_does_not_run(data: tuple[str, str]) -> None:
    statement = "DELETE FROM no_such_table WHERE VECTOR_DISTANCE(v, VECTOR_EMBEDDING(minilm USING 'x' AS data), DOT) < 1"
    shown = ok("sql", "--translate", "-c", statement, *data)
    assert shown.startswith("DELETE FROM no_such_table WHERE ")
    assert "vector_embedding(" in shown
    assert "USING" not in shown


def test_long_statement_with_progress(data: tuple[str, str]) -> None:
    """Longer than the time after which the second connection starts to look."""
    assert "(1 row)" in ok("sql", "-c", "SELECT pg_sleep(1.2)", *data)


# Doctor, engine -----------------------------------------------------------------------------------------------------------


def test_doctor_finds_nothing_wrong(data: tuple[str, str], db: pythiadb.Connection) -> None:
    db.execute("SELECT pythia.remove_orphaned_models()")  # of schemas that other tests have dropped
    findings = {f["check"]: f for f in json.loads(ok("doctor", "--json", *data))}
    assert [finding for finding in findings.values() if finding["state"] != "ok"] == []
    assert {"python", "postgresql programs", "disk", "connection", "schema", "dblink", "engine"} <= set(
        findings
    )
    assert "384 dimensions" in findings["model minilm"]["text"]
    assert "model minilm" in ok("doctor", *data)


def test_doctor_tries_models_of_texts_and_passes_over_what_was_dropped(
    data: tuple[str, str], db: pythiadb.Connection
) -> None:
    load = "CALL dbms_vector.load_onnx_model(:1, :2, :3)"
    words = '{"function": "embedding", "input": {"input": ["WORDS"]}}'
    for name in ("animals", "gone"):
        db.execute(load, (name, string_graph().SerializeToString(), words))
    rating = '{"function": "regression", "input": {"user_input": ["U"], "movie_input": ["M"]}}'
    db.execute(load, ("taste", recommender(), rating))
    db.execute("DROP VIEW gone")
    findings = {f["check"]: f for f in json.loads(ok("doctor", "--json", *data))}
    schema = db.execute("SELECT current_schema()").fetchone()
    assert schema is not None
    assert findings[f"model {schema[0]}.animals"]["text"].startswith("3 dimensions in")
    assert findings[f"model {schema[0]}.taste"]["text"] == "regression, not tried"
    assert findings["orphaned models"]["state"] == "warning"
    assert not any("gone" in name for name in findings)


def test_doctor_without_a_model(make_directory: Callable[[], Path]) -> None:
    shop = make_directory() / "shop"
    ok("start", "--data", shop)
    findings = {f["check"]: f for f in json.loads(ok("doctor", "--json", "--data", shop))}
    assert findings["models"]["state"] == "warning"
    assert findings["models"]["advice"].startswith("pythia model load")


def test_doctor_names_what_failed(tmp_path: Path) -> None:
    for target in (("--data", tmp_path / "nowhere"), ("--dsn", "postgresql:///x?host=/nonexistent")):
        result = pythia("doctor", "--json", *target)
        assert result.exit_code == 1
        last: dict[str, Any] = json.loads(result.stdout)[-1]
        assert (last["check"], last["state"]) == ("connection", "failed")


def test_engine_status_and_restart(data: tuple[str, str], db: pythiadb.Connection) -> None:
    assert db.server is not None
    before = cluster.engine_pid(db.server.layout)
    assert "workers" in ok("engine", "status", *data)
    restarted = ok("engine", "restart", *data)
    after = cluster.engine_pid(db.server.layout)
    assert after not in (None, before)
    assert restarted == f"engine runs with pid {after}\n"
    assert db.execute("SELECT vector_dims(vector_embedding('minilm', 'a'))").fetchone() == (384,)
    report = json.loads(ok("engine", "status", "--json", *data))
    assert report["workers"][0]["pid"]


# A server's database ------------------------------------------------------------------------------------------------------


@pytest.fixture
def empty(db: pythiadb.Connection) -> Iterator[str]:
    """The URL of a database without the schema."""
    name = f"cli_{uuid.uuid4().hex[:12]}"
    db.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
    yield f"postgresql://postgres@/{name}?host={db.info.host}"
    db.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_install_upgrade_uninstall_by_url(empty: str) -> None:
    missing = pythia("sql", "--dsn", empty, "-c", "SELECT 1")
    assert missing.exit_code == 1
    assert "has no pythia schema" in missing.stderr
    assert "HINT:  Run: pythia install postgresql://" in missing.stderr
    version = install.latest_version()
    installed = ok("install", empty)
    assert f"schema version {version} installed" in installed
    assert f'pythia engine run --dsn "{empty}"' in installed
    assert f"schema version {version} was there already" in ok("upgrade", empty)
    assert json.loads(ok("sql", "--dsn", empty, "--json", "-c", "SELECT pythia.engine_ping() AS p")) == [
        {"p": "pong"}
    ]
    ok("sql", "--dsn", empty, "-c", "CREATE VIEW mine AS SELECT count(*) FROM pythia.model")
    refused = pythia("uninstall", empty)
    assert refused.exit_code == 1
    assert "ERROR:  other objects depend on schema pythia\nDETAIL:  " in refused.stderr
    assert "view mine" in refused.stderr
    assert ok("uninstall", empty, "--cascade") == "uninstalled\n"
    assert pythia("uninstall", empty).exit_code == 1


def test_install_into_what_is_no_url_or_no_server() -> None:
    for url in ("nonsense", "postgresql:///x?host=/nonexistent"):
        result = pythia("install", url)
        assert result.exit_code == 1
        assert result.stderr.startswith("ERROR:  ")


def test_engine_of_a_server_elsewhere_is_refused(tmp_path: Path) -> None:
    result = pythia("engine", "run", "--dsn", "postgresql:///x?host=/nonexistent", "--folder", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith("ERROR:  ")


def test_unknown_engine_setting(tmp_path: Path) -> None:
    result = pythia("engine", "run", "--data", tmp_path / "x", "--set", "nonsense=1")
    assert result.exit_code == 1
    assert 'unrecognized engine setting "nonsense"' in result.stderr
    assert not Server.at(tmp_path / "x").exists()
