"""Repairs of a tree that sqlglot read as Oracle SQL, before it is written as PostgreSQL SQL.

sqlglot's own translation keeps Oracle's DATE a date, SYSDATE a time with zone, and days as plain numbers; PostgreSQL needs
a timestamp and an interval.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from pythiadb.errors import FeatureNotSupported

_TRUNCATE = {
    "DD": "day", "DDD": "day", "J": "day", "DAY": "week", "DY": "week", "IW": "week", "MM": "month", "MON": "month",
    "MONTH": "month", "RM": "month", "Q": "quarter", "YYYY": "year", "YEAR": "year", "YY": "year", "Y": "year",
    "HH": "hour", "HH12": "hour", "HH24": "hour", "MI": "minute",
}  # fmt: skip


def repair(tree: exp.Expr) -> exp.Expr:
    """Change a tree so that PostgreSQL's text means what Oracle's did."""
    for change in _CHANGES:
        tree = tree.transform(change, copy=False)
    return tree


def _now(node: exp.Expr) -> exp.Expr:
    """SYSDATE has whole seconds and no zone."""
    if isinstance(node, exp.CurrentTimestamp) and node.args.get("sysdate"):
        return _function("LOCALTIMESTAMP", exp.Literal.number(0))
    return exp.CurrentTimestamp() if isinstance(node, exp.Systimestamp) else node


def _types(node: exp.Expr) -> exp.Expr:
    """Oracle's DATE has a time part, and its NUMBER is numeric with the sizes as given."""
    if not isinstance(node, exp.DataType):
        return node
    if node.is_type("date"):
        return _type("TIMESTAMP(0)")
    if node.is_type("decimal"):
        sizes = ", ".join(
            "38" if isinstance(size.this, exp.Star) else size.sql() for size in node.expressions
        )
        return _type(f"NUMERIC({sizes})" if sizes else "NUMERIC")
    raw = node.this == exp.DataType.Type.USERDEFINED and str(node.args.get("kind")).upper() == "RAW"
    return _type("BYTEA") if raw else node


def _type(text: str) -> exp.DataType:
    return exp.DataType(this=exp.DataType.Type.USERDEFINED, kind=text)


def _hidden_functions(node: exp.Expr) -> exp.Expr:
    if not isinstance(node, exp.Anonymous):
        return node
    arguments = node.expressions
    if node.name == "__pythia_json" and len(arguments) == 1:
        return exp.cast(arguments[0], "jsonb")
    if node.name == "__pythia_to_date":
        return _timestamp(_function("TO_TIMESTAMP", *arguments))
    if node.name == "__pythia_add_months" and len(arguments) == 2:
        months = exp.Mul(this=_wrapped(arguments[1]), expression=_interval("1 month"))
        return exp.Paren(this=exp.Add(this=_wrapped(arguments[0]), expression=months))
    return node


def _dates(node: exp.Expr) -> exp.Expr:
    """A date literal has a time part; TRUNC of a date names its unit as PostgreSQL does."""
    if isinstance(node, exp.DateStrToDate):
        return _timestamp(node.this)
    if isinstance(node, (exp.DateTrunc, exp.TimestampTrunc)):
        unit = node.text("unit").upper()
        return _function("DATE_TRUNC", exp.Literal.string(_TRUNCATE.get(unit, unit.lower())), node.this)
    return node


def _rounding(node: exp.Expr) -> exp.Expr:
    """PostgreSQL rounds to digits only what is numeric."""
    digits = node.args.get("decimals") if isinstance(node, (exp.Round, exp.Trunc)) else None
    if digits is None or digits.is_string:
        return node
    return _function(
        "ROUND" if isinstance(node, exp.Round) else "TRUNC", exp.cast(node.this, "numeric"), digits
    )


def _division(node: exp.Expr) -> exp.Expr:
    """Oracle divides numbers, PostgreSQL would divide integers."""
    if not isinstance(node, exp.Div) or node.args.get("typed"):
        return node
    exact = exp.Mul(this=node.this.copy(), expression=exp.Literal.number("1.0"))
    return exp.Div(this=exact, expression=node.expression.copy(), typed=True, safe=False)


def _days(node: exp.Expr) -> exp.Expr:
    """A number added to or taken from a point in time counts days."""
    if not isinstance(node, (exp.Add, exp.Sub)):
        return node
    left, right = node.this, node.expression
    if _is_time(left) and _is_time(right):
        seconds = exp.Extract(this=exp.var("EPOCH"), expression=exp.Paren(this=node.copy()))
        days = exp.Div(this=seconds, expression=exp.Literal.number(86400), typed=True, safe=False)
        return exp.Paren(this=days) if isinstance(node, exp.Sub) else node
    if _is_time(left) and not _is_interval(right):
        node.set("expression", exp.Mul(this=_wrapped(right.copy()), expression=_interval("1 day")))
    elif _is_time(right) and isinstance(node, exp.Add) and not _is_interval(left):
        node.set("this", exp.Mul(this=_wrapped(left.copy()), expression=_interval("1 day")))
    return node


def _is_time(node: exp.Expr) -> bool:
    """Tell whether an expression is surely a point in time: the clock, a date literal, or either shifted or truncated."""
    if isinstance(node, exp.Paren):
        return _is_time(node.this)
    if isinstance(node, (exp.Add, exp.Sub)):
        left, right = _is_time(node.this), _is_time(node.expression)
        return left != right
    if isinstance(node, exp.Cast):
        return node.to.args.get("kind") == "TIMESTAMP(0)" or node.to.is_type("timestamp", "timestamptz")
    if isinstance(node, exp.Anonymous):
        truncates = node.name == "DATE_TRUNC" and _is_time(node.expressions[1])
        return node.name == "LOCALTIMESTAMP" or truncates
    return isinstance(node, (exp.CurrentTimestamp, exp.CurrentDate, exp.DateStrToDate))


def _is_interval(node: exp.Expr) -> bool:
    if isinstance(node, exp.Paren):
        return _is_interval(node.this)
    return node.find(exp.Interval) is not None


def _dual(node: exp.Expr) -> exp.Expr:
    """FROM dual is no FROM at all; beside other tables it is one row."""
    if isinstance(node, exp.Select):
        tables = node.args.get("from_")
        only = tables is not None and not node.args.get("joins") and _is_dual(tables.this)
        if only and not any(isinstance(item, exp.Star) for item in node.expressions):
            node.set("from_", None)
    elif _is_dual(node):
        return exp.select(exp.alias_(exp.Literal.string("X"), "dummy")).subquery(node.alias or "dual")
    return node


def _user(node: exp.Expr) -> exp.Expr:
    """USER is shown as the dictionary shows names: in upper case, unless it was quoted."""
    if isinstance(node, exp.Select) and node.args.get("from_"):  # the column keeps its name
        items = [
            exp.alias_(item, "user", quoted=True) if _is_user(item) else item for item in node.expressions
        ]
        node.set("expressions", items)
    return _function("pythia.oracle_name", exp.CurrentUser()) if _is_user(node) else node


def _is_user(node: exp.Expr) -> bool:
    plain = isinstance(node, exp.Column) and not node.table and not node.this.args.get("quoted")
    return plain and node.name.upper() == "USER"


def _is_dual(node: exp.Expr) -> bool:
    return isinstance(node, exp.Table) and node.name.lower() == "dual" and not node.args.get("db")


def _assignments(node: exp.Expr) -> exp.Expr:
    """UPDATE t SET t.v = 1: PostgreSQL wants the bare column."""
    if isinstance(node, exp.Update):
        for assignment in node.expressions:
            target = assignment.this
            if isinstance(assignment, exp.EQ) and isinstance(target, exp.Column) and target.table:
                assignment.set("this", exp.column(target.this))
    return node


def _row_count(node: exp.Expr) -> exp.Expr:
    """WHERE ROWNUM <= n takes n rows, before they are grouped; PostgreSQL has LIMIT, which counts last."""
    if isinstance(node, exp.Column) and node.name.upper() == "ROWNUM" and not node.table:
        raise FeatureNotSupported(
            "ROWNUM is supported as WHERE ROWNUM <= n only", hint="Use row_number() OVER (), or FETCH FIRST."
        )
    where = node.args.get("where") if isinstance(node, exp.Select) else None
    parts = (
        list(where.this.flatten()) if where and isinstance(where.this, exp.And) else [where and where.this]
    )
    counted = [(part, count) for part in parts if part is not None and (count := _counted_rows(part))]
    plain = not any(node.args.get(name) for name in ("group", "distinct", "limit", "having"))
    if len(counted) != 1 or not isinstance(node, exp.Select) or not plain:
        return node
    if any(item.find(exp.AggFunc) for item in node.expressions):
        return node
    rest = [part for part in parts if part is not counted[0][0]]
    node.set("where", exp.Where(this=exp.and_(*rest, copy=False)) if rest else None)
    return node.limit(counted[0][1], copy=False)


def _counted_rows(part: exp.Expr) -> exp.Expr | None:
    """The n of ROWNUM <= n, ROWNUM < n + 1 and, for 1, ROWNUM = 1."""
    if not isinstance(part, (exp.LTE, exp.LT, exp.EQ)) or part.this.sql().upper() != "ROWNUM":
        return None
    limit = part.expression
    if isinstance(part, exp.LT):
        return exp.Sub(this=_wrapped(limit), expression=exp.Literal.number(1))
    return limit if isinstance(part, exp.LTE) or limit.sql() == "1" else None


def _function(name: str, *arguments: exp.Expr) -> exp.Anonymous:
    return exp.Anonymous(this=name, expressions=list(arguments))


def _timestamp(node: exp.Expr) -> exp.Cast:
    return exp.Cast(this=node, to=_type("TIMESTAMP(0)"))


def _interval(text: str) -> exp.Expr:
    return exp.Interval(this=exp.Literal.string(text))


def _wrapped(node: exp.Expr) -> exp.Expr:
    return exp.Paren(this=node) if isinstance(node, exp.Binary) else node


_CHANGES: tuple[Callable[[exp.Expr], exp.Expr], ...] = (
    _row_count,
    _user,
    _dual,
    _types,
    _now,
    _hidden_functions,
    _dates,
    _rounding,
    _division,
    _days,
    _assignments,
)
