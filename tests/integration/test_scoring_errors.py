"""What cannot be scored is a clear error, the same whatever way a statement takes."""

from __future__ import annotations

import psycopg
import pytest
from scoring_tables import SOURCES

import pythiadb

# Errors -------------------------------------------------------------------------------------------------------------------

ERRORS = [
    ("PREDICTION(nothing USING p.*)", "UndefinedTable", 'relation "nothing" does not exist', ""),
    ("PREDICTION(people USING p.*)", "UndefinedObject", 'people" is not a model', "SELECT relation FROM pythia.model"),
    ("PREDICTION(segments USING p.*)", "WrongObjectType", 'is a clustering model, PREDICTION needs a regression or classification model', ""),
    ("PREDICTION(minilm USING p.*)", "WrongObjectType", "is an embedding model, PREDICTION needs", ""),
    ("PREDICTION_PROBABILITY(spend USING p.*)", "WrongObjectType", "PREDICTION_PROBABILITY needs a classification model", ""),
    ("CLUSTER_ID(forest USING p.*)", "WrongObjectType", "CLUSTER_ID needs a clustering model", ""),
    ("CLUSTER_PROBABILITY(segments USING p.*)", "WrongObjectType", "model has no output for CLUSTER_PROBABILITY", "clusteringProbOutput"),
    ("CLUSTER_DISTANCE(mixture USING p.*)", "WrongObjectType", "model has no output for CLUSTER_DISTANCE", "clusteringDistanceOutput"),
    ("VECTOR_EMBEDDING(forest USING p.city AS data)", "WrongObjectType", "VECTOR_EMBEDDING needs an embedding model", ""),
    ("VECTOR_EMBEDDING(minilm USING p.city AS body)", "UndefinedColumn", 'has no attribute "body"', 'Its attribute is "DATA"'),
    ("PREDICTION_PROBABILITY(forest, 'iron' USING p.*)", "InvalidParameterValue", 'model has no class "iron"', "The classes are bronze"),
    ("PREDICTION_PROBABILITY(numbers, 11 USING p.*)", "InvalidParameterValue", 'model has no class "11"', "The classes are 10, 20, 30"),
    ("CLUSTER_DISTANCE(segments, 5 USING p.*)", "InvalidParameterValue", 'model has no cluster "5"', "The clusters are 1, 2, 3, 4"),
    ("PREDICTION_SET(forest, 0 USING p.*)", "InvalidParameterValue", "must be a positive integer, not 0", ""),
    ("PREDICTION_SET(forest, 'x' USING p.*)", "InvalidTextRepresentation", 'invalid input syntax for type integer: "x"', ""),
    ("PREDICTION(forest USING p.city AS age)", "InvalidParameterValue", 'invalid value for attribute "AGE"', ""),
    ("PREDICTION(forest USING missing AS age)", "UndefinedColumn", 'column "missing" does not exist', ""),
    ("PREDICTION(towns USING p.age, ARRAY[1] AS city)", "InvalidParameterValue", 'invalid value for attribute "CITY"', ""),
    ("PREDICTION(sevens USING 1e30 AS n, p.age)", "InvalidParameterValue", 'of attribute "N" is out of range for type int64', ""),
]  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("call", "kind", "message", "hint"), ERRORS, ids=[case[0] for case in ERRORS])
def test_errors(
    people: pythiadb.Connection, call: str, kind: str, message: str, hint: str, source: str
) -> None:
    """The same error whatever way a statement takes, and the session goes on."""
    with pytest.raises(getattr(psycopg.errors, kind)) as caught:
        people.execute(f"SELECT p.id, {call} FROM {SOURCES[source]} WHERE p.age IS NOT NULL".encode())
    assert message in (caught.value.diag.message_primary or "")
    assert hint in (caught.value.diag.message_hint or "")
    assert people.execute("SELECT PREDICTION(sevens USING 8 AS n)").fetchone() == (1.0,)


def test_scoring_needs_the_privilege_on_the_model(people: pythiadb.Connection, models: str) -> None:
    people.execute("CREATE ROLE nobody_in_particular")
    people.execute(f"GRANT USAGE ON SCHEMA {models} TO nobody_in_particular".encode())
    schema = people.execute("SELECT current_schema()").fetchone()
    assert schema is not None
    people.execute(
        f"GRANT USAGE ON SCHEMA {schema[0]} TO nobody_in_particular; GRANT SELECT ON people TO nobody_in_particular".encode()
    )
    people.execute("SET SESSION AUTHORIZATION nobody_in_particular")
    try:
        for call in (
            "PREDICTION(forest USING p.*)",
            "CLUSTER_ID(segments USING p.*)",
            "PREDICTION(towns USING p.*)",
        ):
            for source in SOURCES.values():
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for model"):
                    people.execute(f"SELECT {call} FROM {source}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            people.execute("SELECT s.* FROM people p, TABLE(PREDICTION_SET(forest USING p.*)) s")
    finally:
        people.execute("RESET SESSION AUTHORIZATION")
        people.execute("DROP OWNED BY nobody_in_particular; DROP ROLE nobody_in_particular")
