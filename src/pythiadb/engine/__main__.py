"""`python -m pythiadb.engine`: what `pythia engine run` does, without the imports of the command line.

Embedded databases start their engine so: it has to be up quickly.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pythiadb.engine.detach import detach
from pythiadb.engine.run import DEFAULT_FOLDER, run
from pythiadb.engine.settings import load


def main() -> None:
    """Parse the arguments and serve until the end."""
    parser = argparse.ArgumentParser(
        prog="pythia engine run", description="Run the engine beside a PostgreSQL server."
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--data", type=Path, help="directory of an embedded database")
    where.add_argument("--dsn", help="postgresql:// URL of a prepared server")
    parser.add_argument(
        "--folder", type=Path, default=DEFAULT_FOLDER, help="cache, status and log, with --dsn"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="overrides")
    parser.add_argument(
        "--detach", action="store_true", help="go into the background once the engine listens"
    )
    arguments = parser.parse_args()
    settings = load(dict(pair.partition("=")[::2] for pair in arguments.overrides))
    on_listening = detach() if arguments.detach else None
    run(arguments.data, arguments.dsn, arguments.folder, settings, on_listening)


if __name__ == "__main__":
    main()
