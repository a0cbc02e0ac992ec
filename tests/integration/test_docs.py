"""README and docs describe what exists: their blocks are run, their tables compared with the code.

Conventions of a page; all blocks of a page run in order, in a schema of the page's own, with the model `minilm`:

- a block `sql` is run as `pythia sql` runs it; a block `text` right behind it is what `pythia sql` prints
- a block `python` is executed; a block `text` right behind it is what it prints
- a block `console` holds `$ command` lines, each followed by what it prints; `shop` is a running database, and Python finds
  the repository's tools
- `<!-- test: WORDS -->` before a block changes that: `oracle` (the dialect), `error` (it has to fail), `translate` (print the
  PostgreSQL statements, which the page may break into lines), `run` (the output is an example), `skip REASON` (not run)

PYTHIA_DOCS=write makes the tests write the real output into the pages instead of comparing it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

import pythiadb
from pythiadb import errors
from pythiadb.cli import display, main, shell
from pythiadb.cli.target import Target
from pythiadb.engine.settings import SETTINGS
from pythiadb.postgres.binaries import bin_dir

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
WIDTH = 110
WRITE = os.environ.get("PYTHIA_DOCS") == "write"
FENCE = re.compile(
    r"(?P<mark><!-- test: (?P<words>[^>]*?) -->\n)?(?P<open>```(?P<kind>\w+)\n)(?P<body>.*?)(?P<close>^```$)",
    re.DOTALL | re.MULTILINE,
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)#\s]+)(#[^)]*)?\)")


@dataclass
class Page:
    """A page while its blocks run: the connections, the names that its Python blocks define, where it may write."""

    shop: Path
    folder: Path
    connections: dict[str, pythiadb.Connection]
    names: dict[str, Any] = field(default_factory=dict)
    output: io.StringIO = field(default_factory=io.StringIO)

    def taken(self) -> str:
        """What has been printed since the last call."""
        text = self.output.getvalue()
        self.output.seek(0)
        self.output.truncate()
        return "\n".join(line.rstrip() for line in text.splitlines())


@pytest.fixture
def page(
    shop: Path, minilm_folder: Path, make_directory: Callable[[], Path], monkeypatch: Any
) -> Iterator[Page]:
    """A folder with `shop` and `all-MiniLM-L6-v2` in it, and connections whose tables go with the test."""
    folder = make_directory()
    (folder / "work").mkdir()
    work = folder / "work"
    (work / "shop").symlink_to(shop)
    (work / "all-MiniLM-L6-v2").symlink_to(minilm_folder)
    schema = f"docs_{uuid.uuid4().hex[:12]}"
    monkeypatch.chdir(work)
    monkeypatch.setenv("PGOPTIONS", f"-c search_path={schema},public,pythia")
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{bin_dir()}:{os.environ['PATH']}")
    with contextlib.ExitStack() as stack:
        connections = {
            dialect: stack.enter_context(pythiadb.connect(shop, dialect=dialect, autocommit=True))
            for dialect in ("postgres", "oracle")
        }
        plain = connections["postgres"]
        plain.execute(f"CREATE SCHEMA {schema}")
        roles = _roles(plain)
        made = Page(shop, work, connections)
        for module in (display, shell):
            for name in ("console", "error_console"):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, Console(file=made.output, width=WIDTH, highlight=False))
        yield made
        for connection in connections.values():
            connection.rollback()
            connection.execute("RESET ROLE")
        plain.execute(f"DROP SCHEMA {schema} CASCADE")
        for role in _roles(plain) - roles:
            plain.execute(f'DROP OWNED BY "{role}" CASCADE')
            plain.execute(f'DROP ROLE "{role}"')
        plain.execute("SELECT pythia.remove_orphaned_models()")


def _roles(connection: pythiadb.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT rolname FROM pg_roles").fetchall()}


def run_sql(page: Page, text: str, words: set[str]) -> str:
    """Run statements as `pythia sql` does; return what it prints."""
    connection = page.connections["oracle" if "oracle" in words else "postgres"]
    runner = shell.Shell(
        connection, Target(page.shop, None), as_json=False, only_translate="translate" in words
    )
    worked = runner.run_script(text)
    printed = page.taken()
    assert worked != ("error" in words), printed
    return printed


def run_python(page: Page, text: str, words: set[str]) -> str:
    """Execute Python; return what it prints."""
    with contextlib.redirect_stdout(page.output):
        exec(compile(text, "<block>", "exec"), page.names)
    return page.taken()


def run_console(page: Page, text: str, words: set[str]) -> str:
    """Run the `$ ` lines; return them, each with what it prints."""
    lines = []
    for command in re.findall(r"^\$ ((?:.*\\\n)*.*)$", text, re.MULTILINE):
        printed = _help(command) if command.endswith("--help") else _run(page, command, "error" in words)
        lines += [f"$ {command}", *(line.rstrip() for line in printed.splitlines())]
    return "\n".join(lines)


def _help(command: str) -> str:
    return CliRunner().invoke(main, shlex.split(command)[1:], prog_name="pythia").output


def _run(page: Page, command: str, fails: bool) -> str:
    done = subprocess.run(
        ["bash", "-c", command], cwd=page.folder, check=False, text=True, timeout=120,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert (done.returncode != 0) == fails, f"{command}\n{done.stdout}"
    return done.stdout


RUNNERS = {"sql": run_sql, "python": run_python, "console": run_console}


def rendered(page: Page, text: str) -> str:
    """Run the blocks of a page's text and return the text with the real output in it."""
    pieces, end, pending, broken = [], 0, None, False
    for fence in FENCE.finditer(text):
        between = text[end : fence.start()]
        pieces.append(between)
        words = set((fence["words"] or "").split())
        body, kind = fence["body"], fence["kind"]
        if kind == "text" and pending is not None and not between.strip():
            body = body if broken and pending.split() == body.split() else pending + "\n"
        pending = None
        if kind in RUNNERS and "skip" not in words:
            printed = RUNNERS[kind](page, body, words)
            if kind == "console":
                body = body if "run" in words else printed + "\n"
            elif "run" not in words:
                pending, broken = printed, "translate" in words
        pieces += [fence["mark"] or "", fence["open"], body, fence["close"]]
        end = fence.end()
    return "".join(pieces) + text[end:]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_blocks_run_and_print_what_the_page_shows(page: Page, path: Path) -> None:
    text = path.read_text()
    real = rendered(page, text)
    if WRITE:
        path.write_text(real)
    else:
        assert real.splitlines() == text.splitlines()


@pytest.mark.parametrize(
    "path", sorted({*PAGES, *ROOT.glob("*.md")}), ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_lead_somewhere(path: Path) -> None:
    targets = [target for target, _ in LINK.findall(path.read_text()) if "://" not in target]
    assert [target for target in targets if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_has_a_known_kind(path: Path) -> None:
    text = path.read_text()
    assert text.count("```") == 2 * len(FENCE.findall(text))
    kinds = {match["kind"] for match in FENCE.finditer(text)}
    assert kinds <= {*RUNNERS, "text", "java", "ini", "json"}


def rows(page: str) -> list[list[str]]:
    """The rows of a page's tables, without their heads."""
    lines = (DOCS / page).read_text().splitlines()
    cells = [[c.strip() for c in line.strip("| ").split(" | ")] for line in lines if line.startswith("|")]
    heads = [n for n, row in enumerate(cells) if set("".join(row)) <= set("-: |")]
    return [row for n, row in enumerate(cells) if n not in heads and n + 1 not in heads]


def test_settings_table_is_the_code_s() -> None:
    expected = [[f"`{s.name}`", f"{s.default}", f"{s.minimum} .. {s.maximum}", s.help] for s in SETTINGS]
    assert [row for row in rows("reference/settings.md") if row[0].startswith("`")] == expected


def test_errors_table_is_the_code_s() -> None:
    expected = {
        (f"`{cls.sqlstate}`", f"`{name}`")
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, errors.PythiaError) and cls is not errors.PythiaError
    }
    assert {(row[0], row[1]) for row in rows("reference/errors.md") if len(row) == 3} >= expected


def test_dependencies_table_is_the_project_s() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = [re.split(r"[\[>=]", requirement)[0] for requirement in wanted]
    # The table of extras has three columns.
    table = [row[0] for row in rows("decisions/0002-dependencies.md") if len(row) == 2]
    assert sorted(table) == sorted(names)


def test_every_command_is_documented() -> None:
    page = (DOCS / "reference/cli.md").read_text()
    assert [name for name in _commands(main, "pythia") if f"$ {name} --help\n" not in page] == []


def _commands(command: click.Command, name: str) -> Iterator[str]:
    yield name
    if isinstance(command, click.Group):
        for part in command.commands.values():
            yield from _commands(part, f"{name} {part.name}")


FUNCTIONS = """
SELECT has_function_privilege('public', p.oid, 'EXECUTE'), format('%s.%s(%s)', n.nspname, p.proname, (
    SELECT string_agg(format_type(t, NULL), ', ' ORDER BY i) FROM unnest(p.proargtypes) WITH ORDINALITY AS a(t, i)))
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname IN ('pythia', 'dbms_vector', 'dbms_data_mining', 'dbms_output')
"""
RELATIONS = """
SELECT c.oid::regclass::text FROM pg_class c
WHERE c.relnamespace = 'pythia'::regnamespace AND c.relkind IN ('r', 'v') AND has_table_privilege('public', c.oid, 'SELECT')
"""
SIGNATURE = re.compile(r"^(?:###|-) `((?:pythia|dbms_\w+)\.\w+\(.*?\))", re.MULTILINE)


def test_every_public_function_is_documented(db: pythiadb.Connection) -> None:
    """Headings and lists of functions.md hold signatures; what they name exists, and what PUBLIC may execute is among them."""
    headings = SIGNATURE.findall((DOCS / "reference/functions.md").read_text())
    documented = {re.sub(r"(\w+) ([\w\[\] ]+?)( = [^,)]+)?(?=[,)])", r"\2", heading) for heading in headings}
    functions = db.execute(FUNCTIONS).fetchall()
    assert {name for public, name in functions if public} - documented == set()
    assert documented - {name for _, name in functions} == set()


def test_every_public_view_is_documented(db: pythiadb.Connection) -> None:
    page = (DOCS / "reference/functions.md").read_text()
    db.execute("SET search_path = pg_catalog")
    names = [row[0].replace('"', "") for row in db.execute(RELATIONS).fetchall()]
    assert [
        name for name in names if not re.search(rf"^(###|-) `{re.escape(name)}`", page, re.MULTILINE)
    ] == []


def test_every_public_name_is_documented() -> None:
    page = (DOCS / "reference/python-api.md").read_text()
    assert [name for name in pythiadb.__all__ if f"`{name}`" not in page and f"`{name}(" not in page] == []
