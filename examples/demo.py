"""Make a database of Python's standard library, embed it, search it: `make demo`, or `python -m examples.demo --help`.

Read `main` first: each line of it is one step. The rows come from `stdlib_corpus.py`, the questions from `searches.py`.
What is done already is not done again, so that a second run only searches.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from pathlib import Path

import psycopg.sql

import pythiadb
from examples.searches import SEARCHES, Search
from examples.show import console, embed, show_sql, show_table, shown, step
from examples.stdlib_corpus import collect
from pythiadb.cli.display import print_error

ROOT = Path(__file__).resolve().parent.parent

TABLES = """
CREATE TABLE IF NOT EXISTS module (
    name text PRIMARY KEY,
    area text NOT NULL,
    doc  text NOT NULL
);
CREATE TABLE IF NOT EXISTS item (
    name      text PRIMARY KEY,
    module    text NOT NULL REFERENCES module,
    kind      text NOT NULL,  -- function, class, exception, method, property
    signature text NOT NULL,
    doc       text NOT NULL,
    v         VECTOR(384, FLOAT32) NOT NULL
);
CREATE TEMPORARY TABLE found (name text, module text, kind text, signature text, doc text)
"""

EMBED = """
INSERT INTO item (name, module, kind, signature, doc, v)
SELECT f.name, f.module, f.kind, f.signature, f.doc,
       VECTOR_EMBEDDING(minilm USING f.name || ': ' || f.doc AS data)
FROM found f
WHERE NOT EXISTS (SELECT FROM item i WHERE i.name = f.name)
"""

NEXT = """
The database stays in {data}. Go on from here:

  {pythia} sql --data {data}
      SELECT name, doc FROM item
      ORDER BY VECTOR_DISTANCE(v, VECTOR_EMBEDDING(minilm USING 'shuffle a deck of cards' AS data), COSINE)
      FETCH FIRST 3 ROWS ONLY;
  {pythia} engine status --data {data}
  {pythia} doctor --data {data}
"""


def main() -> None:
    """Run the demonstration."""
    options = parse_options()
    with open_database(options.data) as db:
        load_model(db, options.model)
        find_rows(db, options.limit)
        embed_rows(db, options.data)
        for number, search in enumerate(SEARCHES, 1):
            answer(db, number, search)
    pythia = shown(Path(sys.executable).with_name("pythia"))
    console.print(NEXT.format(data=shown(options.data), pythia=pythia), markup=False, soft_wrap=True)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Search the documentation of Python's standard library.")
    parser.add_argument("--data", type=Path, default=ROOT / "demo-data", help="the database's directory")
    parser.add_argument(
        "--model", type=Path, default=ROOT / ".cache/models/all-MiniLM-L6-v2", help="a Hugging Face folder"
    )
    parser.add_argument("--limit", type=int, help="take only so many rows")
    options = parser.parse_args()
    options.data = options.data.absolute()
    return options


def open_database(directory: Path) -> pythiadb.Connection:
    """Start the embedded server, which is created when there is none, and connect."""
    with step(f"Start PostgreSQL and the engine in {shown(directory)}") as facts:
        db = pythiadb.connect(directory, autocommit=True)
        facts.append(f"PostgreSQL {db.info.parameter_status('server_version')}")
    return db


def load_model(db: pythiadb.Connection, folder: Path) -> None:
    """Load the embedding model, unless it is in the database."""
    with step(f"Load the model {folder.name} as minilm") as facts:
        if db.execute("SELECT to_regclass('minilm')").fetchone() == (None,):
            pythiadb.load_model(db, folder, "minilm")
        row = db.execute("SELECT VECTOR_EMBEDDING(minilm USING 'hello, world' AS data)").fetchone()
        assert row is not None
        facts.append(f"{len(row[0])} dimensions")


def find_rows(db: pythiadb.Connection, limit: int | None) -> None:
    """Make the tables, and put what Python documents into a temporary one."""
    with step(f"Collect what Python {platform.python_version()} documents") as facts:
        modules, items = collect()
        items = items[:: max(1, len(items) // limit)][:limit] if limit else items
        db.execute(TABLES)
        insert = "INSERT INTO module (name, area, doc) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
        with db.cursor() as cursor:
            cursor.executemany(insert, [(m.name, m.area, m.doc) for m in modules])
            with cursor.copy("COPY found FROM STDIN") as copy:
                for item in items:
                    copy.write_row((item.name, item.module, item.kind, item.signature, item.doc))
        facts.append(f"{len(modules)} modules with {len(items):,} functions, classes and their parts")


def embed_rows(db: pythiadb.Connection, directory: Path) -> None:
    """Move the rows that are new into their table and compute their vectors, in one statement."""
    embed("Embed the new rows", db, directory, EMBED)


def answer(db: pythiadb.Connection, number: int, search: Search) -> None:
    """Run a search and print question, statement and answer."""
    started = time.perf_counter()
    cursor = db.execute(search.sql, {"text": search.text})
    rows, seconds = cursor.fetchall(), time.perf_counter() - started
    console.rule(f"[bold]{number}. {search.title}:[/] {search.text}", align="left")
    show_sql(search.sql.replace(":text", psycopg.sql.Literal(search.text).as_string(db)))
    show_table([column.name for column in cursor.description or ()], rows)
    console.print(f"[dim]{len(rows)} rows in {seconds * 1000:.0f} ms[/]\n")


if __name__ == "__main__":
    try:
        main()
    except pythiadb.Error as error:  # Ctrl-C while embedding comes here too: the statement is cancelled
        print_error(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
