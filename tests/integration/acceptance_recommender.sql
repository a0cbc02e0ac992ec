ALTER TABLE movies ADD (cf_embedding VECTOR(64, FLOAT32));
UPDATE movies SET cf_embedding = :1 WHERE movieid = :2;
WITH source AS (
  SELECT 'Apocalypse Now (1979)' AS title UNION ALL
  SELECT 'Toy Story (1995)' UNION ALL
  SELECT 'Fargo (1996)'),
scored AS (
  SELECT s.title AS source_title, c.title AS candidate_title, VECTOR_DISTANCE(m.cf_embedding, c.cf_embedding, COSINE) AS distance
  FROM source s JOIN movies m ON m.title = s.title CROSS JOIN movies c WHERE c.title != s.title),
ranked AS (SELECT scored.*, ROW_NUMBER() OVER (PARTITION BY source_title ORDER BY distance ASC) AS rnk FROM scored)
SELECT source_title, candidate_title, distance FROM ranked WHERE rnk <= 5 ORDER BY source_title, rnk;
