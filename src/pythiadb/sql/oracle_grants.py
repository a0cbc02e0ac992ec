"""Oracle's GRANT and REVOKE of what PostgreSQL knows by other names: rights about models, directories and packages."""

from __future__ import annotations

from pythiadb.errors import FeatureNotSupported
from pythiadb.sql.references import folded
from pythiadb.sql.scoring import literal
from pythiadb.sql.source import Source, Span

_MODEL = ("MINING", "MODEL")
_CREATE = ("CREATE", *_MODEL)
_PACKAGES = ("DBMS_VECTOR", "DBMS_DATA_MINING", "DBMS_OUTPUT")  # the schemas of these names
_OWNER = "Grant membership in the role that owns the models."
_HINTS = {
    "CREATE SESSION": "Any role may connect unless CONNECT on the database is revoked; to log in takes ALTER ROLE … LOGIN.",
    "CREATE ANY MINING MODEL": "Grant CREATE MINING MODEL, and where: GRANT CREATE ON SCHEMA … TO the role.",
    "SELECT ANY MINING MODEL": "Grant SELECT ON MINING MODEL for each, or GRANT SELECT ON ALL TABLES IN SCHEMA …: models are views.",
    "DROP ANY MINING MODEL": _OWNER,
    "ALTER ANY MINING MODEL": _OWNER,
    "COMMENT ANY MINING MODEL": _OWNER,
}
_SYSTEM = "PostgreSQL grants rights on objects, such as CREATE ON SCHEMA and CREATE ON DATABASE, and membership in roles."


def translate_grant(source: Source) -> list[str] | None:
    """Translate a GRANT or REVOKE; None for one that is PostgreSQL's as well.

    Raises FeatureNotSupported with a hint for rights that are given in another way here.
    """
    everything = source.inside(-1)
    preposition = "TO" if source.key(0) == "GRANT" else "FROM"
    who = next((i for i in source.flat(everything) if source.key(i) == preposition), None)
    if who is None:
        return None
    on = next((i for i in source.flat(Span(1, who)) if source.key(i) == "ON"), None)
    if on is None:
        return _system(source, who)
    if source.shape(Span(on + 1, on + 3)) == _MODEL:
        return [_on_model(source, on)]
    if source.key(on + 1) == "DIRECTORY":
        raise _directory(source, on)
    return _on_package(source, on, who)


def _system(source: Source, who: int) -> list[str] | None:
    """CREATE MINING MODEL, alone or beside roles; no other right without ON has more than one word in PostgreSQL."""
    parts = source.split(Span(1, who), ",")
    if all(part.end - part.start == 1 for part in parts) or source.shape(Span(2, 4)) == ("OPTION", "FOR"):
        return None
    roles = []
    for part in parts:
        shape = source.shape(part)
        if part.end - part.start == 1:
            roles.append(_text(source, part))
        elif shape != _CREATE:
            privilege = " ".join(shape)
            hint = _HINTS.get(privilege, _SYSTEM)
            raise _unsupported(source, part.start, f"privilege {privilege}", hint)
    behind = Span(who + 1, len(source.tokens))
    verb = source.key(0)
    others = f"{verb} {', '.join(roles)} {source.key(who)} {_text(source, behind)}"
    return [*([others] if roles else []), *_create_model(source, behind)]


def _create_model(source: Source, behind: Span) -> list[str]:
    """The calls that give each of the roles the right to load models, or take it back."""
    verb = source.key(0).lower()
    option = next((i for i in source.flat(behind) if source.key(i) == "WITH"), None)
    if option is not None:
        hint = "Leave it out: who installed the schema of Pythia gives this right."
        raise _unsupported(source, option, "CREATE MINING MODEL WITH ADMIN OPTION", hint)
    calls = []
    for role in source.split(behind, ","):
        if source.shape(role) == ("PUBLIC",):
            hint = "Model files are trusted one role at a time: grant it to a role, and that role to others."
            raise _unsupported(source, role.start, "CREATE MINING MODEL for PUBLIC", hint)
        calls.append(f"CALL pythia.{verb}_create_model({literal(_text(source, role))})")
    return calls


def _on_model(source: Source, on: int) -> str:
    """A model's view knows SELECT, which is the right to score; changing a model is its owner's."""
    for privilege in source.split(Span(1, on), ","):
        if source.shape(privilege) != ("SELECT",):
            what = f"privilege {' '.join(source.shape(privilege))} on a mining model"
            hint = "Grant SELECT, or membership in the role that owns the model."
            raise _unsupported(source, privilege.start, what, hint)
    return f"{source.at(0).text} SELECT ON {_text(source, Span(on + 3, len(source.tokens)))}"


def _directory(source: Source, on: int) -> FeatureNotSupported:
    name = folded(source, on + 2)
    return _unsupported(
        source,
        on + 1,
        f"{source.key(0)} on a directory",
        f"CALL pythia.create_directory({literal(name)}, '/the/path', '{{role, …}}') says which roles may read from it.",
    )


def _on_package(source: Source, on: int, who: int) -> list[str] | None:
    """EXECUTE on a package is the use of a schema: what is in it is everybody's, or has a right of its own."""
    start = on + 1 + 2 * (source.key(on + 2) == ".")
    package = source.key(start)
    if source.shape(Span(1, on)) != ("EXECUTE",) or start + 1 != who or not package.startswith("DBMS_"):
        return None
    if package not in _PACKAGES:
        hint = f"The packages are {', '.join(_PACKAGES)}."
        raise _unsupported(source, start, f"package {package}", hint)
    return [
        f"{source.at(0).text} USAGE ON SCHEMA {package.lower()} {_text(source, Span(who, len(source.tokens)))}"
    ]


def _unsupported(source: Source, index: int, what: str, hint: str) -> FeatureNotSupported:
    return FeatureNotSupported(f"{what} is not supported", detail=source.where(index), hint=hint)


def _text(source: Source, span: Span) -> str:
    return source.text[slice(*source.offsets(span))]
