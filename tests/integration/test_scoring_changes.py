"""Scoring in statements that change and define, with parameters, and in Oracle's blocks."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from scoring_models import Made
from scoring_tables import FP, VALUES, F

import pythiadb

# Changes and definitions --------------------------------------------------------------------------------------------------

DML = {
    "insert": [f"INSERT INTO answers SELECT id, {F} FROM people"],
    "insert with a limit": [f"INSERT INTO answers SELECT id, {F} FROM people ORDER BY id LIMIT 1000"],
    "insert from a cte": [f"WITH s AS (SELECT id, {F} AS f FROM people) INSERT INTO answers SELECT id, f FROM s"],
    "insert on conflict": [
        "INSERT INTO answers SELECT id, 'old' FROM people",
        f"INSERT INTO answers SELECT p.id, {FP} FROM people p ON CONFLICT (id) DO UPDATE SET label = excluded.label",
    ],
    "update": [f"UPDATE people SET label = {F}", "INSERT INTO answers SELECT id, label FROM people"],
    "update with alias": [f"UPDATE people AS p SET label = {FP} WHERE p.id >= 0", "INSERT INTO answers SELECT id, label FROM people"],
    "update from": [
        f"UPDATE people SET label = s.f FROM (SELECT id, {F} AS f FROM people) s WHERE s.id = people.id",
        "INSERT INTO answers SELECT id, label FROM people",
    ],
    "update star": ["UPDATE people SET label = PREDICTION(forest USING *)", "INSERT INTO answers SELECT id, label FROM people"],
    "update where": [
        *(f"UPDATE people SET label = '{label}' WHERE {F} = '{label}'" for label in ("bronze", "it''s gold", 'sil"ver\\')),
        "INSERT INTO answers SELECT id, label FROM people",
    ],
    "update a subquery": [
        "UPDATE people p SET label = (SELECT PREDICTION(forest USING q.*) FROM people q WHERE q.id = p.id)",
        "INSERT INTO answers SELECT id, label FROM people",
    ],
    "returning": [f"WITH u AS (UPDATE people SET p = 1 RETURNING id, {F} AS f) INSERT INTO answers SELECT id, f FROM u"],
    "delete": [
        f"INSERT INTO answers SELECT id, {F} FROM people WHERE {F} <> 'bronze'",
        f"DELETE FROM people WHERE {F} <> 'bronze'",
        "INSERT INTO answers SELECT id, 'bronze' FROM people",
    ],
    "merge": [
        "INSERT INTO answers SELECT id, 'old' FROM people WHERE id < 20",
        "MERGE INTO answers a USING people AS p ON a.id = p.id "
        f"WHEN MATCHED THEN UPDATE SET label = {FP} WHEN NOT MATCHED THEN INSERT VALUES (p.id, {FP})",
    ],
    "merge of a query": [
        f"MERGE INTO answers a USING (SELECT id, {F} AS f FROM people) AS s ON a.id = s.id "
        "WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.f)",
    ],
    "create table as": [f"CREATE TABLE made AS SELECT id, {F} AS f FROM people", "INSERT INTO answers TABLE made"],
    "materialized view": [
        f"CREATE MATERIALIZED VIEW seen AS SELECT id, {F} AS f FROM people",
        "INSERT INTO answers SELECT id, f FROM seen",
        "REFRESH MATERIALIZED VIEW seen",
        "INSERT INTO answers SELECT id, f FROM seen ON CONFLICT DO NOTHING",
    ],
    "view": [f"CREATE VIEW seen AS SELECT id, {F} AS f FROM people", "INSERT INTO answers SELECT * FROM seen"],
    "view of sets": [
        "CREATE VIEW seen AS SELECT p.id, s.prediction FROM people p, TABLE(PREDICTION_SET(forest, 1 USING p.*)) s",
        "INSERT INTO answers SELECT * FROM seen",
    ],
    "view of sets in a column": [
        "CREATE VIEW seen AS SELECT t.id, s.prediction FROM (SELECT id, PREDICTION_SET(forest, 1 USING *) AS pset FROM people) t, "
        "TABLE(t.pset) s",
        "INSERT INTO answers SELECT * FROM seen",
    ],
    "merge of a set in a column": [
        "MERGE INTO answers a USING (WITH t AS (SELECT id, PREDICTION_SET(forest, 1 USING *) AS pset FROM people) "
        "SELECT t.id, s.prediction FROM t CROSS JOIN TABLE(t.pset) s) q ON a.id = q.id WHEN NOT MATCHED THEN INSERT VALUES (q.id, q.prediction)",
    ],
    "prepared": [f"PREPARE q (int) AS INSERT INTO answers SELECT id, {F} FROM people WHERE id >= $1", "EXECUTE q (0)"],
    "cursor": [f"BEGIN; DECLARE k CURSOR WITH HOLD FOR SELECT {F} FROM people; COMMIT; CLOSE k", f"INSERT INTO answers SELECT id, {F} FROM people"],
    "explain": [f"EXPLAIN (ANALYZE, COSTS OFF) INSERT INTO answers SELECT id, {F} FROM people"],
    "copy": [f"COPY (SELECT {F} FROM people) TO STDOUT", f"INSERT INTO answers SELECT id, {F} FROM people"],
    "block": ["DO $$ BEGIN INSERT INTO answers SELECT id, pythia.prediction('forest', to_jsonb(p.*), NULL::text) FROM people p; END $$"],
    "trigger": [
        "CREATE FUNCTION label_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.label := "
        "pythia.prediction('forest', to_jsonb(NEW), NULL::text); RETURN NEW; END $$",
        "CREATE TRIGGER t BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION label_it()",
        "UPDATE people SET p = 1",
        "INSERT INTO answers SELECT id, label FROM people",
    ],
}  # fmt: skip


@pytest.mark.parametrize("change", DML)
def test_changes_and_definitions(change: str, people: pythiadb.Connection, labels: list[str]) -> None:
    """What ends in the table answers is the label of every row."""
    people.execute("CREATE TABLE answers (id int PRIMARY KEY, label text)")
    for statement in DML[change]:
        if statement.startswith("COPY"):
            with people.cursor().copy(statement) as copy:
                assert sum(bytes(block).count(b"\n") for block in copy) == len(labels)
        else:
            people.execute(statement.encode())
    rows = people.execute("SELECT id, label FROM answers ORDER BY id").fetchall()
    assert rows == list(enumerate(labels))
    lost = people.execute("SELECT count(*) FROM people WHERE id > 60").fetchone()
    assert lost == (0,)


ORACLE_DML = {
    "insert": [f"INSERT INTO answers (id, label) SELECT p.id, {FP} FROM people p"],
    "insert of a set in a column": [
        "INSERT INTO answers (id, label) SELECT t.id, s.prediction FROM (SELECT id, PREDICTION_SET(forest, 1 USING *) pset FROM people) t, "
        "TABLE(t.pset) s",
    ],
    "update": [f"UPDATE people SET label = {F}", "INSERT INTO answers SELECT id, label FROM people"],
    "merge": [
        f"MERGE INTO answers a USING people p ON (a.id = p.id) WHEN NOT MATCHED THEN INSERT (id, label) VALUES (p.id, {FP})"
    ],
    "create table as": [f"CREATE TABLE made AS SELECT id, {F} AS f FROM people", "INSERT INTO answers SELECT * FROM made"],
    "view": [f"CREATE OR REPLACE VIEW seen AS SELECT id, {F} AS f FROM people", "INSERT INTO answers SELECT * FROM seen"],
    "delete": [
        f"INSERT INTO answers SELECT id, {F} FROM people WHERE {F} <> 'bronze'",
        f"DELETE people WHERE {F} <> 'bronze'",
        "INSERT INTO answers SELECT id, 'bronze' FROM people",
    ],
    "block": [
        f"DECLARE n NUMBER; BEGIN INSERT INTO answers SELECT id, {F} FROM people; SELECT COUNT(*) INTO n FROM answers; "
        "DBMS_OUTPUT.PUT_LINE('rows: ' || n); END;"
    ],
    "loop": [
        f"BEGIN FOR r IN (SELECT p.id, {FP} AS f FROM people p) LOOP INSERT INTO answers VALUES (r.id, r.f); END LOOP; END;"
    ],
    "variable": [
        "DECLARE l VARCHAR2(40); BEGIN FOR r IN (SELECT id, age, visits, spent, days FROM people) LOOP "
        "SELECT PREDICTION(forest USING r.age AS age, r.visits AS visits, r.spent AS spent, r.days AS days) INTO l FROM dual; "
        "INSERT INTO answers VALUES (r.id, l); END LOOP; END;"
    ],
}  # fmt: skip


@pytest.mark.parametrize("change", ORACLE_DML)
def test_changes_in_oracle_sql(change: str, oracle_people: pythiadb.Connection, labels: list[str]) -> None:
    oracle_people.execute("CREATE TABLE answers (id NUMBER PRIMARY KEY, label VARCHAR2(30))")
    for statement in ORACLE_DML[change]:
        oracle_people.execute(statement.encode())
    rows = oracle_people.execute("SELECT id, label FROM answers ORDER BY id").fetchall()
    assert rows == list(enumerate(labels))


# Parameters ---------------------------------------------------------------------------------------------------------------

BOUND = [
    ("{0} AS age, {1} AS visits, {2} AS spent, {3} AS days", ":a :v :s :d"),
    ("{0} AS age, {1} AS visits, {2} AS spent, {3} AS days", ":1 :2 :3 :4"),
    ("{0} AS age, {1} AS visits, {2} AS spent, {3} AS days", "%s %s %s %s"),
    ("{0} AS age, {1} AS visits, {2} AS spent, {3} AS days", "%(a)s %(v)s %(s)s %(d)s"),
    ("({0}) AS age, CAST({1} AS int) AS visits, {2}::numeric AS spent, 0.0 + {3} AS days", "%s %s %s %s"),
]


@pytest.mark.parametrize(("attributes", "names"), BOUND)
def test_bound_values(people: pythiadb.Connection, labels: list[str], attributes: str, names: str) -> None:
    """Every style of parameter, as numbers, decimals, texts and None; prepared after some runs."""
    call = f"SELECT PREDICTION(forest USING {attributes.format(*names.split())}) AS l"
    for number, row in enumerate(VALUES[:12] + VALUES[-2:]):
        given = [
            row,
            [None if v is None else Decimal(v) for v in row],
            [None if v is None else str(v) for v in row],
        ]
        for kind in given if "CAST" not in attributes else given[1:2]:
            values = [kind[0], None if kind[1] is None else int(float(kind[1])), *kind[2:]]
            params = dict(zip("avsd", values, strict=True)) if ":a" in names or "(a)" in names else values
            expected = labels[number] if number < 12 else labels[number - 14]
            assert people.execute(call.encode(), params).fetchone() == (expected,)


def test_bound_values_over_a_table(people: pythiadb.Connection, labels: list[str]) -> None:
    """Parameters in a condition, in an argument and in an attribute of one batched statement."""
    statement = (
        "SELECT id, PREDICTION(forest USING p.age + :zero AS age, p.visits, p.spent, p.days), "
        "PREDICTION_PROBABILITY(forest, :class USING p.*) FROM people p WHERE id < :top ORDER BY id"
    )
    for _ in range(7):  # psycopg prepares it
        rows = people.execute(statement, {"zero": 0, "class": "bronze", "top": 30}).fetchall()
        assert [row[:2] for row in rows] == list(enumerate(labels))[:30]
        assert [row[2] > 0.5 for row in rows] == [label == "bronze" for label in labels[:30]]


def test_bound_values_of_a_whole_batch(people: pythiadb.Connection, labels: list[str]) -> None:
    people.execute("CREATE TABLE answers (label text)")
    with people.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO answers VALUES (PREDICTION(forest USING :a AS age, :v AS visits, :s AS spent, :d AS days))",
            [dict(zip("avsd", row, strict=True)) for row in VALUES],
        )
    assert people.execute("SELECT label FROM answers").fetchall() == [(label,) for label in labels]


# Oracle SQL ---------------------------------------------------------------------------------------------------------------


def test_a_block_scores_and_talks(oracle_people: pythiadb.Connection, labels: list[str]) -> None:
    """Binds, variables, branches, a loop with an exception, a change, and lines of DBMS_OUTPUT as notices."""
    notices: list[str] = []
    oracle_people.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    oracle_people.execute(
        """
        DECLARE
          found  VARCHAR2(40);
          p      NUMBER;
          missed PLS_INTEGER := 0;
        BEGIN
          FOR r IN (SELECT * FROM people WHERE id < :n ORDER BY id) LOOP
            BEGIN
              SELECT PREDICTION(forest USING r.age AS age, r.visits AS visits, r.spent AS spent, r.days AS days),
                     PREDICTION_PROBABILITY(forest, 'bronze' USING r.age AS age, r.visits AS visits, r.spent AS spent, r.days AS days)
                INTO found, p FROM dual;
              IF found = :wanted AND p > 0.3 THEN
                DBMS_OUTPUT.PUT_LINE(r.id || ': ' || found);
              ELSE
                missed := missed + 1;
              END IF;
              found := PREDICTION(forest USING 'x' AS age);
            EXCEPTION
              WHEN OTHERS THEN
                UPDATE people SET label = PREDICTION(forest USING age, visits, spent, days) WHERE id = r.id;
            END;
          END LOOP;
          DBMS_OUTPUT.PUT_LINE('missed ' || missed);
        END;
        """,
        {"n": 20, "wanted": "bronze"},
    )
    bronze = [number for number, label in enumerate(labels[:20]) if label == "bronze"]
    assert notices == [*(f"{number}: bronze" for number in bronze), f"missed {20 - len(bronze)}"]
    rows = oracle_people.execute(
        "SELECT id, label FROM people WHERE label IS NOT NULL ORDER BY id"
    ).fetchall()
    assert rows == list(enumerate(labels))[:20]


@pytest.mark.parametrize("value", ["it's", "$pythia$", "a $pythia1$ b", "%s", ":x", "", None])
def test_bound_texts_of_a_block(oracle: pythiadb.Connection, value: str | None) -> None:
    """Values are written into a block as literals, whatever they hold."""
    oracle.execute("CREATE TABLE said (line VARCHAR2(90))")
    statement = "DECLARE l VARCHAR2(90) := :line; BEGIN INSERT INTO said VALUES (l); INSERT INTO said VALUES (:line); END;"
    oracle.execute(statement, {"line": value})
    assert oracle.execute("SELECT line FROM said").fetchall() == [(value,), (value,)]


def test_privileges_on_models(
    oracle_people: pythiadb.Connection, models: str, made: dict[str, Made], shop: Path
) -> None:
    """A role that may create models, and one that may use one of them until it is revoked."""
    for role in ("scoring_loader", "scoring_reader"):
        oracle_people.execute(f"CREATE ROLE {role} NOT IDENTIFIED")
    oracle_people.execute("GRANT CREATE MINING MODEL TO scoring_loader")
    schema = oracle_people.execute("SELECT current_schema() FROM dual").fetchone()
    assert schema is not None
    oracle_people.execute(f"GRANT USAGE, CREATE ON SCHEMA {schema[0]} TO scoring_loader")
    oracle_people.execute(f"GRANT USAGE ON SCHEMA {schema[0]} TO scoring_reader")
    use = "SELECT PREDICTION(theirs USING 20 AS age, 3 AS visits, 1 AS spent, 2 AS days) FROM dual"
    try:
        for role, allowed in (("scoring_reader", False), ("scoring_loader", True)):
            oracle_people.execute(f"SET SESSION AUTHORIZATION {role}")
            load = ("theirs", made["forest"].graph, made["forest"].metadata_text)
            if not allowed:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    oracle_people.execute("CALL DBMS_VECTOR.LOAD_ONNX_MODEL(:1, :2, :3)", load)
            else:
                oracle_people.execute("CALL DBMS_VECTOR.LOAD_ONNX_MODEL(:1, :2, :3)", load)
                oracle_people.execute("COMMENT ON MINING MODEL theirs IS 'It says a metal.'")
                rows = oracle_people.execute("SELECT model_name, comments FROM user_mining_models").fetchall()
                assert rows == [("THEIRS", "It says a metal.")]
        expected = tuple(made["forest"].model.predict([[20, 3, 1, 2]]))
        assert oracle_people.execute(use).fetchone() == expected
        oracle_people.execute("GRANT SELECT ON MINING MODEL theirs TO scoring_reader")
        oracle_people.execute("SET SESSION AUTHORIZATION scoring_reader")
        assert oracle_people.execute(use).fetchone() == expected
        oracle_people.execute("SET SESSION AUTHORIZATION scoring_loader")
        oracle_people.execute("REVOKE SELECT ON MINING MODEL theirs FROM scoring_reader")
        oracle_people.execute("SET SESSION AUTHORIZATION scoring_reader")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            oracle_people.execute(use)
        oracle_people.execute("RESET SESSION AUTHORIZATION")
        oracle_people.execute("REVOKE CREATE MINING MODEL FROM scoring_loader")
        oracle_people.execute("SET SESSION AUTHORIZATION scoring_loader")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            oracle_people.execute("CALL DBMS_VECTOR.LOAD_ONNX_MODEL(:1, :2, :3)", ("mine", *load[1:]))
    finally:
        oracle_people.execute("RESET SESSION AUTHORIZATION")
        for role in ("scoring_loader", "scoring_reader"):
            oracle_people.execute(f"DROP OWNED BY {role} CASCADE")
            oracle_people.execute(f"DROP ROLE {role}")
