-- What people look at.

CREATE OR REPLACE VIEW pythia.model_details WITH (security_invoker = true) AS
SELECT m.id,
       m.relation::text AS model_name,
       m.function,
       (m.spec ->> 'dimensions')::integer AS dimensions,
       (m.spec ->> 'max_tokens')::integer AS max_tokens,
       jsonb_path_query_array(m.spec, '$.attributes[*].name') AS attributes,
       m.size AS model_size,
       m.created_at,
       m.metadata,
       m.facts,
       m.spec ->> 'result' AS result,
       m.external_data,
       m.inmemory
FROM pythia.model m;
COMMENT ON VIEW pythia.model_details IS 'The columns that every model''s own view shows.';
