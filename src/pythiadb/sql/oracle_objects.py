"""Oracle's statements about roles, directories and mining models."""

from __future__ import annotations

from pythiadb.errors import FeatureNotSupported, SQLSyntaxError
from pythiadb.sql.oracle_grants import translate_grant
from pythiadb.sql.scan import Kind
from pythiadb.sql.scoring import literal
from pythiadb.sql.source import Source, Span

_MODEL = ("MINING", "MODEL")


def translate_object_statement(source: Source) -> list[str] | None:
    """Translate CREATE ROLE, CREATE DIRECTORY, COMMENT for mining models, and Oracle's GRANT and REVOKE; None for any other."""
    first, end = source.key(0), len(source.tokens)
    if first == "CREATE" and source.key(1) == "ROLE":
        return [_create_role(source)]
    if first == "CREATE":
        return _create_directory(source)
    if first in ("GRANT", "REVOKE"):
        return translate_grant(source)
    if first == "DROP" and source.key(1) == "DIRECTORY":
        raise _drop_directory(source)
    if first == "COMMENT" and source.shape(Span(1, min(4, end))) == ("ON", *_MODEL):
        return [f"COMMENT ON VIEW {_text(source, Span(4, end))}"]
    return None


def _create_role(source: Source) -> str:
    """Without NOT IDENTIFIED: a role that is granted needs no password."""
    end = len(source.tokens)
    if source.shape(Span(max(end - 2, 0), end)) == ("NOT", "IDENTIFIED"):
        end -= 2
    return _text(source, Span(0, end))


def _create_directory(source: Source) -> list[str] | None:
    """CREATE [OR REPLACE] DIRECTORY name AS 'path'."""
    at = 3 if source.shape(Span(1, min(3, len(source.tokens)))) == ("OR", "REPLACE") else 1
    if source.key(at) != "DIRECTORY":
        return None
    name, path = source.at(at + 1), source.at(at + 3)
    if source.key(at + 2) != "AS" or path.kind is not Kind.STRING or len(source.tokens) != at + 4:
        raise SQLSyntaxError(
            f'syntax error at or near "{source.at(at + 2).text}"', detail=source.where(at + 2)
        )
    return [f"CALL pythia.create_directory({literal(_name(name.text))}, {path.text})"]


def _drop_directory(source: Source) -> FeatureNotSupported:
    name = literal(_name(source.at(2).text))
    return FeatureNotSupported(
        "DROP DIRECTORY is not supported",
        detail=source.where(0),
        hint=f"Who installed the schema of Pythia writes DELETE FROM pythia.directory WHERE name = lower({name}).",
    )


def _text(source: Source, span: Span) -> str:
    return source.text[slice(*source.offsets(span))]


def _name(text: str) -> str:
    return text[1:-1].replace('""', '"') if text.startswith('"') else text.lower()
