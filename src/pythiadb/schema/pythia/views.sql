-- What people look at.

CREATE OR REPLACE VIEW pythia.model_details WITH (security_invoker = true) AS
SELECT m.id,
       m.relation::text AS model_name,
       m.function,
       (m.spec ->> 'dimensions')::integer AS dimensions,
       (m.spec ->> 'max_tokens')::integer AS max_tokens,
       m.spec -> 'attributes' AS attributes,
       m.size AS model_size,
       m.created_at,
       m.metadata,
       m.facts
FROM pythia.model m;
COMMENT ON VIEW pythia.model_details IS 'The columns that every model''s own view shows.';

-- Oracle shows names in upper case unless they were quoted.
CREATE OR REPLACE VIEW pythia.user_mining_models WITH (security_invoker = true) AS
SELECT CASE WHEN c.relname = lower(c.relname) THEN upper(c.relname) ELSE c.relname::text END AS model_name,
       upper(m.function) AS mining_function,
       'ONNX'::text AS algorithm,
       'NATIVE'::text AS algorithm_type,
       m.created_at::timestamp(0) AS creation_date,
       NULL::numeric AS build_duration,
       m.size AS model_size,
       'NO'::text AS partitioned,
       pg_catalog.obj_description(c.oid, 'pg_class') AS comments
FROM pythia.model m
JOIN pg_catalog.pg_class c ON c.oid = m.relation
JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
WHERE r.rolname = current_user;
COMMENT ON VIEW pythia.user_mining_models IS 'The caller''s own models, as Oracle''s view of the same name; sizes in bytes.';
