"""The command line `pythia`."""

from __future__ import annotations

import sys

import click
import psycopg

from pythiadb import __version__
from pythiadb.cli.display import print_error
from pythiadb.cli.doctor import doctor
from pythiadb.cli.engine import engine
from pythiadb.cli.model import model
from pythiadb.cli.recommend import recommend
from pythiadb.cli.server import install, start, status, stop, uninstall, upgrade
from pythiadb.cli.shell import sql


class ErrorsAsPostgres(click.Group):
    """Shows database errors as psql does instead of a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except psycopg.Error as error:
            print_error(error)
            ctx.exit(1)
        except BrokenPipeError:  # the reader of a pipe has seen enough
            sys.stderr.close()
            ctx.exit(0)


@click.group(
    cls=ErrorsAsPostgres, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="pythia")
def main() -> None:
    """Models, embeddings and vector search inside PostgreSQL."""


for command in (start, stop, status, install, upgrade, uninstall, doctor, sql, model, recommend, engine):
    main.add_command(command)
