"""The tables and statements of the demonstration of recommendations. Each can be pasted into `pythia sql`."""

from __future__ import annotations

TABLES = r"""
CREATE TABLE IF NOT EXISTS movies (
    movieid bigint PRIMARY KEY,
    title   text NOT NULL,
    genres  text NOT NULL,  -- Comedy|Drama
    year    int GENERATED ALWAYS AS (substring(title FROM '\((\d{4})\)$')::int) STORED,
    content_embedding VECTOR(384, FLOAT32)
);
CREATE TABLE IF NOT EXISTS ratings (
    userid    bigint NOT NULL,
    movieid   bigint NOT NULL REFERENCES movies,
    rating    real NOT NULL,
    timestamp bigint NOT NULL,  -- seconds since 1970
    PRIMARY KEY (userid, movieid)
)
"""

LOAD = {
    "movies": "COPY movies (movieid, title, genres) FROM STDIN (FORMAT csv, HEADER)",
    "ratings": "COPY ratings FROM STDIN (FORMAT csv, HEADER)",
}

RATINGS = "SELECT userid, movieid, rating, timestamp FROM ratings"

DESCRIBE = """
UPDATE movies
SET content_embedding = VECTOR_EMBEDDING(
    minilm USING title || ' (' || replace(genres, '|', ', ') || ')' AS data)
WHERE content_embedding IS NULL
"""

_NEAREST = """
WITH source AS (
  SELECT 'Apocalypse Now (1979)' AS title UNION ALL
  SELECT 'Toy Story (1995)' UNION ALL
  SELECT 'Fargo (1996)'),
scored AS (
  SELECT s.title AS source_title, c.title AS candidate_title,
         VECTOR_DISTANCE(m.{column}, c.{column}, COSINE) AS distance
  FROM source s JOIN movies m ON m.title = s.title
  CROSS JOIN movies c WHERE c.title != s.title{condition}),
ranked AS (
  SELECT scored.*,
         ROW_NUMBER() OVER (PARTITION BY source_title ORDER BY distance ASC) AS rnk
  FROM scored)
SELECT source_title, candidate_title, distance
FROM ranked WHERE rnk <= 5 ORDER BY source_title, rnk
"""

PREDICTED = """
SELECT m.title, r.rating AS given,
       round(PREDICTION(cf_recommender USING u.idx AS "USER_IDX", i.idx AS "MOVIE_IDX")::numeric, 2)
         AS predicted
FROM ratings r
JOIN movies m USING (movieid)
JOIN cf_recommender_users u ON u.id = r.userid
JOIN cf_recommender_items i ON i.id = r.movieid
WHERE r.userid = :user
ORDER BY r.timestamp DESC, m.title
FETCH FIRST 5 ROWS ONLY
"""

LIKED = """
SELECT m.title AS "what he liked", m.genres, r.rating
FROM ratings r JOIN movies m USING (movieid)
WHERE r.userid = :user
ORDER BY r.rating DESC, r.timestamp DESC, m.title
FETCH FIRST 5 ROWS ONLY
"""

OPINIONS = "SELECT title, movieid FROM movies WHERE title = ANY (:titles)"

NEWCOMER = {
    "Star Wars (1977)": 5,
    "Alien (1979)": 5,
    "Blade Runner (1982)": 5,
    "Terminator, The (1984)": 4,
    "Sense and Sensibility (1995)": 2,
}


OFTEN_RATED = """
    AND c.movieid IN (SELECT movieid FROM ratings GROUP BY movieid HAVING count(*) >= 50)"""


def nearest(column: str, condition: str = "") -> str:
    """Return the statement that finds the five nearest movies of three, by the vectors of a column."""
    return _NEAREST.format(column=column, condition=condition)
