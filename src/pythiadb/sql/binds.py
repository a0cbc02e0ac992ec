"""Binds: `:name` becomes psycopg's `%(name)s`, and then every other `%` of the text is doubled.

psycopg looks for its placeholders in the raw text, so a `%` in a string, an operator or a comment counts as well.
"""

from __future__ import annotations

from pythiadb.errors import SQLSyntaxError
from pythiadb.sql.scan import Kind, scan
from pythiadb.sql.source import position


def bind_names(text: str) -> tuple[str, ...]:
    """The names of a text's binds; raise SQLSyntaxError if psycopg's placeholders stand beside them."""
    tokens = scan(text, placeholders=True)
    binds = [token for token in tokens if token.kind is Kind.BIND]
    mixed = next((token for token in tokens if token.kind is Kind.PLACEHOLDER), None) if binds else None
    if mixed:
        raise SQLSyntaxError(
            f'placeholder "{mixed.text}" in a statement with binds like "{binds[0].text}"',
            detail=position(text, mixed.start),
            hint="Use one style of parameters; the operator % is written as it is beside binds.",
        )
    return tuple(dict.fromkeys(token.text[1:] for token in binds))


def write_binds(text: str) -> str:
    """Write the binds of a text as psycopg's placeholders."""
    return "".join(
        f"%({token.text[1:]})s" if token.kind is Kind.BIND else token.text.replace("%", "%%")
        for token in scan(text)
    )
