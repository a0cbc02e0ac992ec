"""Binds and placeholders, parting scripts, and the cache."""

from __future__ import annotations

import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st

from pythiadb.errors import SQLSyntaxError
from pythiadb.sql import NO_CATALOG, Dialect, Translation, split_statements, translate
from pythiadb.sql.rewrite import Function, Model, Table, VectorIndex

UPDATE = "UPDATE t SET v = VECTOR_EMBEDDING(m USING d AS data)"


class Keys:
    """A catalog that counts how often it is asked."""

    def __init__(self, version: int, key: str) -> None:
        self.version = version
        self.key = key
        self.asked = 0

    def primary_key(self, table: str) -> tuple[str, ...] | None:
        self.asked += 1
        return (self.key,) if table == "t" else None

    def model(self, name: str) -> Model | None:
        self.asked += 1
        return None

    def table(self, name: str) -> Table | None:
        self.asked += 1
        return None

    def columns(self, relation: str) -> frozenset[str] | None:
        self.asked += 1
        return None

    def vector_indexes(self, table: str) -> tuple[VectorIndex, ...]:
        self.asked += 1
        return ()

    def vector_index(self, name: str) -> VectorIndex | None:
        self.asked += 1
        return None

    def function(self, name: str) -> Function | None:
        self.asked += 1
        return None


@pytest.mark.parametrize(
    ("text", "done", "names"),
    [
        ("SELECT :a, :b, :a", "SELECT %(a)s, %(b)s, %(a)s", ("a", "b")),
        ("SELECT :1 WHERE x = :2", "SELECT %(1)s WHERE x = %(2)s", ("1", "2")),
        ("SELECT a[1:n], a[:n], b::int, c := :d", "SELECT a[1:n], a[:n], b::int, c := %(d)s", ("d",)),
        ("SELECT ARRAY[:a, :b] -- 5% :c", "SELECT ARRAY[%(a)s, %(b)s] -- 5%% :c", ("a", "b")),
        ("SELECT x % 2, 'a%', $$%$$ WHERE y <% :q", "SELECT x %% 2, 'a%%', $$%%$$ WHERE y <%% %(q)s", ("q",)),
        ("SELECT ':x', \":y\", :z::text", "SELECT ':x', \":y\", %(z)s::text", ("z",)),
        ("SELECT 'a%sb' LIKE :q", "SELECT 'a%%sb' LIKE %(q)s", ("q",)),
    ],
)
def test_binds(text: str, done: str, names: tuple[str, ...]) -> None:
    assert translate(text, with_parameters=True) == Translation((done,), names, True)


@pytest.mark.parametrize("text", ["SELECT %s, 'a%%'", "SELECT %(a)s", "SELECT x %% 2"])
def test_own_placeholders_are_left_alone(text: str) -> None:
    assert translate(text, with_parameters=True) == Translation((text,), (), True)


def test_without_placeholders_nothing_is_bound() -> None:
    assert translate("SELECT $1", with_parameters=True) == Translation(("SELECT $1",))


def test_positional_placeholders_get_numbers_when_a_statement_is_rewritten() -> None:
    done = translate(
        "SELECT VECTOR_EMBEDDING(m USING d) AS v FROM t WHERE a = %s AND b = %s", with_parameters=True
    )
    assert done.binds == ("1", "2")
    assert done.statements[0].count("%(1)s") == 2
    assert "%s" not in done.statements[0]


def test_binds_are_copied_with_the_condition() -> None:
    done = translate(
        "SELECT VECTOR_EMBEDDING(m USING d) AS v FROM t WHERE a = :x AND 'b%' = c", with_parameters=True
    )
    assert done.binds == ("x",)
    assert done.statements[0].count("%(x)s") == done.statements[0].count("'b%%'") == 2


def test_two_styles_of_parameters_are_an_error() -> None:
    with pytest.raises(SQLSyntaxError) as caught:
        translate("SELECT :a,\n %s", with_parameters=True)
    assert caught.value.detail == "At line 2, column 2."


@pytest.mark.parametrize(
    ("text", "dialect", "parts"),
    [
        ("SELECT 1; SELECT 2", "postgres", ["SELECT 1", "SELECT 2"]),
        (" ;; SELECT 1 ;\n;", "postgres", ["SELECT 1"]),
        ("-- one\nSELECT ';' ; /* ; */ SELECT $$;$$", "postgres", ["-- one\nSELECT ';'", "/* ; */ SELECT $$;$$"]),
        ("CREATE RULE r AS ON UPDATE TO t DO (DELETE FROM u; SELECT 1); SELECT 2", "postgres", ["CREATE RULE r AS ON UPDATE TO t DO (DELETE FROM u; SELECT 1)", "SELECT 2"]),
        ("CREATE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; SELECT 2; END; SELECT 3", "postgres", ["CREATE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; SELECT 2; END", "SELECT 3"]),
        ("BEGIN; SELECT 1; END; COMMIT", "postgres", ["BEGIN", "SELECT 1", "END", "COMMIT"]),
        ("BEGIN; SELECT 1", "oracle", ["BEGIN", "SELECT 1"]),
        ("BEGIN a; b(1); END;\n/\nSELECT 1", "oracle", ["BEGIN a; b(1); END;", "SELECT 1"]),
        ("DECLARE x NUMBER := 1; BEGIN IF x > 1 THEN p; END IF; BEGIN q; END; LOOP EXIT; END LOOP; END; SELECT 1;", "oracle", ["DECLARE x NUMBER := 1; BEGIN IF x > 1 THEN p; END IF; BEGIN q; END; LOOP EXIT; END LOOP; END;", "SELECT 1"]),
        ("DECLARE c CURSOR FOR SELECT 1; FETCH c", "oracle", ["DECLARE c CURSOR FOR SELECT 1", "FETCH c"]),
        ("CREATE OR REPLACE PROCEDURE p IS x NUMBER; BEGIN q; END p;\n/\nSELECT 1", "oracle", ["CREATE OR REPLACE PROCEDURE p IS x NUMBER; BEGIN q; END p;", "SELECT 1"]),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1; $$; SELECT 1", "oracle", ["CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1; $$;", "SELECT 1"]),
        ("SELECT 4 / 2; SELECT 1", "oracle", ["SELECT 4 / 2", "SELECT 1"]),
    ],
)  # fmt: skip
def test_split_statements(text: str, dialect: Dialect, parts: list[str]) -> None:
    assert split_statements(text, dialect=dialect) == parts


@given(
    st.lists(
        st.sampled_from(
            ["SELECT 1", "-- a;\n", "/* ; */", "';'", "$$;$$", "(", ")", "BEGIN ATOMIC", "END", ";", " "]
        )
    )
)
def test_splitting_loses_only_separators(pieces: list[str]) -> None:
    text = "".join(pieces)
    rest = text
    for statement in split_statements(text):
        before, found, rest = rest.partition(statement)
        assert found
        assert not before.strip("; ")


def test_a_plan_that_asked_the_catalog_is_kept_by_its_version() -> None:
    first, second = Keys(1, "a"), Keys(2, "b")
    assert "t.a = __pythia_u.__pythia_key_1" in translate(UPDATE, catalog=first).statements[0]
    assert "t.b = __pythia_u.__pythia_key_1" in translate(UPDATE, catalog=second).statements[0]
    asked = first.asked
    assert "t.a = " in translate(UPDATE, catalog=first).statements[0]
    assert first.asked == asked
    assert "__pythia_u" not in translate(UPDATE, catalog=NO_CATALOG).statements[0]


def test_a_plan_that_did_not_ask_serves_every_catalog() -> None:
    text = "SELECT VECTOR_NORM(v) FROM t -- a text of its own"
    assert translate(text, catalog=Keys(1, "a")) is translate(text, catalog=Keys(2, "b"))


@pytest.mark.parametrize(
    "text", ["SELECT id, name FROM customer WHERE city = 'x' ORDER BY id", "SELECT VECTOR_NORM(v) FROM t"]
)
def test_a_repeated_statement_is_translated_once(text: str) -> None:
    assert translate(text) is translate(text)


def test_the_log_does_not_tell_of_our_names(caplog: pytest.LogCaptureFixture) -> None:
    """sqlglot warns of what it cannot read, with what stands in for a call in it; others' warnings stay."""
    text = "CREATE USER bob IDENTIFIED BY x DEFAULT TABLESPACE y"
    translate(
        "CREATE FUNCTION f RETURN NUMBER IS BEGIN RETURN PREDICTION(m USING 1 AS a); END", dialect="oracle"
    )
    translate(text, dialect="oracle")
    assert caplog.messages == []
    sqlglot.parse_one(text, read="oracle")
    assert len(caplog.messages) == 1
