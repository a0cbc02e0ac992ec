"""The five searches of the demonstration.

`:text` is bound by Python, as an application does it; the demonstration prints the statements with the text in its place,
so that each can be pasted into `pythia sql`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Search:
    """A search: what it shows, the text to search for, and the statement."""

    title: str
    text: str
    sql: str


NEAREST = Search(
    "The rows nearest to a question",
    "how do I run another program and read its output",
    """
SELECT name, doc,
       VECTOR_DISTANCE(
           v, VECTOR_EMBEDDING(minilm USING :text AS data), COSINE
       ) AS distance
FROM item
ORDER BY distance
FETCH FIRST 5 ROWS ONLY
""",
)

WITH_A_FILTER = Search(
    "With a filter: only exceptions",
    "the program was interrupted",
    """
SELECT name, doc,
       VECTOR_DISTANCE(
           v, VECTOR_EMBEDDING(minilm USING :text AS data), COSINE
       ) AS distance
FROM item
WHERE kind = 'exception'
ORDER BY distance
FETCH FIRST 5 ROWS ONLY
""",
)

WITH_A_JOIN = Search(
    "With a join: only from modules about time, and what they are for",
    "on which day of the week was I born",
    """
SELECT i.name, i.doc, m.doc AS module,
       VECTOR_DISTANCE(
           i.v, VECTOR_EMBEDDING(minilm USING :text AS data), COSINE
       ) AS distance
FROM item i
JOIN module m ON m.name = i.module
WHERE m.area = 'time'
ORDER BY distance
FETCH FIRST 5 ROWS ONLY
""",
)

NEAREST_OF_EACH = Search(
    "The three nearest of each area",
    "cancel what is still running",
    """
SELECT area, name, doc, distance
FROM (
    SELECT m.area, i.name, i.doc, d.distance,
           ROW_NUMBER() OVER (PARTITION BY m.area ORDER BY d.distance) AS place
    FROM item i
    JOIN module m ON m.name = i.module
    CROSS JOIN LATERAL (
        SELECT VECTOR_DISTANCE(
            i.v, VECTOR_EMBEDDING(minilm USING :text AS data), COSINE
        ) AS distance
    ) d
    WHERE m.area IN ('concurrency', 'data formats', 'internet', 'system')
) ranked
WHERE place <= 3
ORDER BY area, place
""",
)

BY_AVERAGE = Search(
    "The modules nearest on average",
    "compressed archives",
    """
SELECT m.name, m.doc, count(*) AS items,
       VECTOR_DISTANCE(
           AVG(i.v), VECTOR_EMBEDDING(minilm USING :text AS data), COSINE
       ) AS distance
FROM item i
JOIN module m ON m.name = i.module
GROUP BY m.name
HAVING count(*) >= 5
ORDER BY distance
FETCH FIRST 6 ROWS ONLY
""",
)

SEARCHES = (NEAREST, WITH_A_FILTER, WITH_A_JOIN, NEAREST_OF_EACH, BY_AVERAGE)
