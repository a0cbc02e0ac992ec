"""Oracle's statements about roles, directories and mining models."""

from __future__ import annotations

from pythiadb.errors import FeatureNotSupported, SQLSyntaxError
from pythiadb.sql.scan import Kind
from pythiadb.sql.scoring import literal
from pythiadb.sql.source import Source, Span

_MODEL = ("MINING", "MODEL")


def translate_object_statement(source: Source) -> list[str] | None:
    """Translate CREATE ROLE, CREATE DIRECTORY, and GRANT, REVOKE and COMMENT for mining models; None for any other."""
    first, end = source.key(0), len(source.tokens)
    if first == "CREATE" and source.key(1) == "ROLE":
        return [_create_role(source)]
    if first == "CREATE":
        return _create_directory(source)
    if first in ("GRANT", "REVOKE"):
        return _grant(source)
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


def _grant(source: Source) -> list[str] | None:
    """Privileges about models: CREATE MINING MODEL, and SELECT ON MINING MODEL m."""
    on = next((i for i in source.flat(source.inside(-1)) if source.key(i) == "ON"), None)
    preposition = "TO" if source.key(0) == "GRANT" else "FROM"
    who = next((i for i in source.flat(source.inside(-1)) if source.key(i) == preposition), None)
    if who is None:
        return None
    if source.shape(Span(1, min(4, len(source.tokens)))) == ("CREATE", *_MODEL) and who == 4:
        return _grant_create(source, who)
    if on is None or source.shape(Span(on + 1, on + 3)) != _MODEL:
        return None
    _check_privileges(source, Span(1, on))
    return [f"{source.at(0).text} SELECT ON {_text(source, Span(on + 3, len(source.tokens)))}"]


def _grant_create(source: Source, who: int) -> list[str]:
    roles = source.split(Span(who + 1, len(source.tokens)), ",")
    verb = source.key(0).lower()
    return [f"CALL pythia.{verb}_create_model({literal(_text(source, role))})" for role in roles]


def _check_privileges(source: Source, span: Span) -> None:
    """A model's view knows SELECT, which is the right to score; changing a model is its owner's."""
    for privilege in source.split(span, ","):
        if source.shape(privilege) != ("SELECT",):
            name = " ".join(source.shape(privilege))
            raise FeatureNotSupported(
                f"privilege {name} on a mining model is not supported",
                detail=source.where(privilege.start),
                hint="Grant SELECT, or membership in the role that owns the model.",
            )


def _text(source: Source, span: Span) -> str:
    return source.text[slice(*source.offsets(span))]


def _name(text: str) -> str:
    return text[1:-1].replace('""', '"') if text.startswith('"') else text.lower()
