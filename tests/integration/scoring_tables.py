"""The table people, which the statements that score read, how it is filled, and what tables of numbers have."""

from __future__ import annotations

from typing import Any

import numpy as np
import scoring_models

import pythiadb

# Duplicates, a NULL, and a row of NULLs after the rows that the models were trained on.
VALUES: list[list[Any]] = [*scoring_models.X.tolist(), *scoring_models.X[:3].tolist()]
VALUES += [[30.0, 5.0, None, 12.5], [None] * 4]
MATRIX = np.array([[np.nan if v is None else v for v in row] for row in VALUES], np.float32)

ALL = 'age, visits, spent AS "SPENT", days AS "Days"'
F = f"PREDICTION(forest USING {ALL})"
OF_P = 'p.age, p.visits, p.spent AS "SPENT", p.days AS "Days"'
FP = f"PREDICTION(forest USING {OF_P})"

CLOSE = 2e-6  # ONNX Runtime adds float32 in another order for another number of rows

FIELDS = "age int, visits bigint, spent numeric, days double precision"
FAST = "in arrays of"  # what a translation says of the way of numbers

# The same rows as numbers in a matrix, joined to their answers by their numbers, as records in batches, and one by one.
SOURCES = {
    "matrix": "people p",
    "joined": "people p JOIN (SELECT 1 AS one) o ON o.one = 1",
    "batch": "(SELECT * FROM people) p",
    "single": "(SELECT * FROM people ORDER BY random()) p",
}


def fill(db: pythiadb.Connection, models: str) -> pythiadb.Connection:
    """The table people, in a schema of the test that is in front of the models'."""
    path = db.execute("SHOW search_path").fetchone()
    assert path is not None
    db.execute(f"SET search_path = {path[0]}, {models}".encode())
    db.execute(
        "CREATE TABLE people (id int PRIMARY KEY, age int, visits bigint, spent numeric, days double precision, "
        "city text, label text, p double precision)"
    )
    with (
        db.cursor() as cursor,
        cursor.copy("COPY people (id, age, visits, spent, days, city) FROM STDIN") as copy,
    ):
        for number, row in enumerate(VALUES):
            whole = [None if v is None else int(v) for v in row[:2]]
            copy.write_row([number, *whole, *row[2:], scoring_models.CITIES[number % 4]])
    return db
