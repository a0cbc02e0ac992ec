"""The five searches of the demonstration. Each prints as it can be pasted into `pythia sql`; `:text` is bound by Python."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Search:
    """A search: what it shows, its statement, and the text that is bound to `:text`."""

    title: str
    text: str
    sql: str


SEARCHES = (
    Search(
        "The nearest rows",
        "how do I run another program and read what it prints",
        """
SELECT name, doc,
       VECTOR_DISTANCE(v, VECTOR_EMBEDDING(minilm USING :text AS data), COSINE) AS distance
FROM item
ORDER BY distance
FETCH FIRST 5 ROWS ONLY
""",
    ),
    Search(
        "With a filter: only exceptions",
        "the other computer does not answer",
        """
SELECT name, doc,
       VECTOR_DISTANCE(v, VECTOR_EMBEDDING(minilm USING :text AS data), COSINE) AS distance
FROM item
WHERE kind = 'exception'
ORDER BY distance
FETCH FIRST 5 ROWS ONLY
""",
    ),
    Search(
        "With a join: functions of the modules about files",
        "remove a folder and everything inside it",
        """
SELECT i.name, i.signature, m.doc AS module,
       VECTOR_DISTANCE(i.v, VECTOR_EMBEDDING(minilm USING :text AS data), COSINE) AS distance
FROM item i JOIN module m ON m.name = i.module
WHERE m.area = 'files' AND i.kind = 'function'
ORDER BY distance
FETCH FIRST 5 ROWS ONLY
""",
    ),
    Search(
        "The three nearest of each area",
        "wait until something is ready",
        """
SELECT area, name, doc, distance
FROM (
    SELECT m.area, i.name, i.doc, d.distance,
           ROW_NUMBER() OVER (PARTITION BY m.area ORDER BY d.distance) AS place
    FROM item i JOIN module m ON m.name = i.module
    CROSS JOIN LATERAL (SELECT VECTOR_DISTANCE(i.v, VECTOR_EMBEDDING(minilm USING :text AS data), COSINE) AS distance) d
) ranked
WHERE place <= 3
ORDER BY area, place
""",
    ),
    Search(
        "More like this",
        "json.dumps",
        """
SELECT other.name, other.doc, VECTOR_DISTANCE(this.v, other.v, COSINE) AS distance
FROM item this JOIN item other ON other.module <> this.module
WHERE this.name = :text
ORDER BY distance
FETCH FIRST 5 ROWS ONLY
""",
    ),
)
