-- Oracle's dictionary of models. Names are shown as Oracle does, in upper case unless they were quoted; sizes are in bytes.
--
-- DBA_ shows all models and is for members of pg_monitor, ALL_ those that the caller may score with, USER_ the caller's own.
-- The views read the tables as the owner of the schema; who asks is current_user in their conditions.

CREATE OR REPLACE FUNCTION pythia.oracle_name(name text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN name = lower(name) THEN upper(name) ELSE name END;

CREATE OR REPLACE VIEW pythia.catalog_model AS
SELECT m.relation, c.relowner AS owner_id, pythia.oracle_name(pg_get_userbyid(c.relowner)) AS owner,
       pythia.oracle_name(c.relname) AS model_name, m.function, m.spec, m.metadata,
       upper(m.function) AS mining_function, 'ONNX'::text AS algorithm, 'NATIVE'::text AS algorithm_type,
       m.created_at::timestamp(0) AS creation_date, round(m.build_duration::numeric, 3) AS build_duration,
       m.size AS model_size, 'NO'::text AS partitioned, obj_description(m.relation, 'pg_class') AS comments,
       CASE WHEN m.external_data THEN 'YES' ELSE 'NO' END AS external_data,
       CASE WHEN m.inmemory THEN 'YES' ELSE 'NO' END AS inmemory
FROM pythia.model m
JOIN pg_class c ON c.oid = m.relation;
COMMENT ON VIEW pythia.catalog_model IS 'What the dictionary views of models stand on.';

-- A text for a tokenizer, or to embed, is a TEXT; a string column of a classifier, for example, is CATEGORICAL.
CREATE OR REPLACE VIEW pythia.catalog_attribute AS
SELECT m.relation, m.owner_id, m.owner, m.model_name, a.place, pythia.oracle_name(a.name) AS attribute_name, a.attribute_type,
       a.data_type, CASE a.data_type WHEN 'VARCHAR2' THEN 4000 END AS data_length,
       NULL::integer AS data_precision, NULL::integer AS data_scale, 'ACTIVE'::text AS usage_type, a.target,
       NULL::text AS attribute_spec, a.vector_info
FROM pythia.catalog_model m,
LATERAL (
    SELECT n AS place, e ->> 'name' AS name,
           CASE e ->> 'type'
               WHEN 'number' THEN 'NUMERICAL' WHEN 'vector' THEN 'VECTOR' WHEN 'blob' THEN 'UNSTRUCTURED'
               ELSE CASE WHEN m.function = 'embedding' OR m.spec ->> 'tokenizer' IS NOT NULL THEN 'TEXT' ELSE 'CATEGORICAL' END
           END AS attribute_type,
           CASE e ->> 'type' WHEN 'number' THEN 'NUMBER' WHEN 'vector' THEN 'VECTOR' WHEN 'blob' THEN 'BLOB' ELSE 'VARCHAR2' END AS data_type,
           'NO' AS target, NULL AS vector_info
    FROM jsonb_array_elements(m.spec -> 'attributes') WITH ORDINALITY AS s(e, n)
    UNION ALL
    SELECT 1 + jsonb_array_length(m.spec -> 'attributes') AS place, 'ORA$ONNXTARGET' AS name,
           CASE m.function WHEN 'embedding' THEN 'VECTOR' WHEN 'regression' THEN 'NUMERICAL' ELSE 'CATEGORICAL' END AS attribute_type,
           CASE m.spec ->> 'result' WHEN 'vector' THEN 'VECTOR' WHEN 'text' THEN 'VARCHAR2' WHEN 'numeric' THEN 'NUMBER'
                                    ELSE 'BINARY_DOUBLE' END AS data_type,
           'YES' AS target,
           CASE m.function WHEN 'embedding' THEN format('VECTOR(%s,FLOAT32)', m.spec ->> 'dimensions') END AS vector_info
    WHERE m.function <> 'clustering') AS a;
COMMENT ON VIEW pythia.catalog_attribute IS 'What the dictionary views of attributes stand on.';

CREATE OR REPLACE VIEW pythia.catalog_view AS
SELECT m.relation, m.owner_id, m.owner, m.model_name, pythia.oracle_name(c.relname) AS view_name,
       CASE d.kind WHEN 'dm$vm' THEN 'ONNX Model Information' WHEN 'dm$vp' THEN 'ONNX Parsing Information'
                   ELSE 'ONNX Metadata Information' END AS view_type
FROM pythia.catalog_model m JOIN pythia.detail_view d ON d.model = m.relation
JOIN pg_class c ON c.oid = d.view;
COMMENT ON VIEW pythia.catalog_view IS 'What the dictionary views of detail views stand on.';

CREATE OR REPLACE VIEW pythia.catalog_setting AS
SELECT m.relation, m.owner_id, m.owner, m.model_name, s.name AS setting_name, s.value AS setting_value, s.kind AS setting_type
FROM pythia.catalog_model m,
LATERAL (SELECT 'ALGO_NAME' AS name, 'ALGO_ONNX' AS value, 'DEFAULT' AS kind
         UNION ALL SELECT p.name, p.value, 'INPUT' AS kind FROM pythia.model_parameters(m.metadata) AS p) AS s;
COMMENT ON VIEW pythia.catalog_setting IS 'What the dictionary views of settings stand on.';

-- Models -------------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW pythia.dba_mining_models AS
SELECT owner, model_name, mining_function, algorithm, algorithm_type, creation_date, build_duration, model_size,
       partitioned, comments, external_data, inmemory
FROM pythia.catalog_model;
COMMENT ON VIEW pythia.dba_mining_models IS 'All models, as Oracle''s view of the same name.';

CREATE OR REPLACE VIEW pythia.all_mining_models WITH (security_barrier = true) AS
SELECT owner, model_name, mining_function, algorithm, algorithm_type, creation_date, build_duration, model_size,
       partitioned, comments, external_data, inmemory
FROM pythia.catalog_model WHERE has_table_privilege(relation, 'SELECT');
COMMENT ON VIEW pythia.all_mining_models IS 'The models that the caller may score with, as Oracle''s view of the same name.';

CREATE OR REPLACE VIEW pythia.user_mining_models WITH (security_barrier = true) AS
SELECT model_name, mining_function, algorithm, algorithm_type, creation_date, build_duration, model_size,
       partitioned, comments, external_data, inmemory
FROM pythia.catalog_model WHERE owner_id = to_regrole(quote_ident(current_user));
COMMENT ON VIEW pythia.user_mining_models IS 'The models that the caller owns, as Oracle''s view of the same name.';

-- Attributes ---------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW pythia.dba_mining_model_attributes AS
SELECT owner, model_name, attribute_name, attribute_type, data_type, data_length, data_precision, data_scale, usage_type,
       target, attribute_spec, vector_info
FROM pythia.catalog_attribute;
COMMENT ON VIEW pythia.dba_mining_model_attributes IS 'All attributes of models, as Oracle''s view of the same name.';

CREATE OR REPLACE VIEW pythia.all_mining_model_attributes WITH (security_barrier = true) AS
SELECT owner, model_name, attribute_name, attribute_type, data_type, data_length, data_precision, data_scale, usage_type,
       target, attribute_spec, vector_info
FROM pythia.catalog_attribute WHERE has_table_privilege(relation, 'SELECT');
COMMENT ON VIEW pythia.all_mining_model_attributes IS 'The attributes of the models that the caller may score with, as Oracle''s view of the same name.';

CREATE OR REPLACE VIEW pythia.user_mining_model_attributes WITH (security_barrier = true) AS
SELECT model_name, attribute_name, attribute_type, data_type, data_length, data_precision, data_scale, usage_type,
       target, attribute_spec, vector_info
FROM pythia.catalog_attribute WHERE owner_id = to_regrole(quote_ident(current_user));
COMMENT ON VIEW pythia.user_mining_model_attributes IS 'The attributes of the models that the caller owns, as Oracle''s view of the same name.';

-- Detail views -------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW pythia.dba_mining_model_views AS
SELECT owner, model_name, view_name, view_type
FROM pythia.catalog_view;
COMMENT ON VIEW pythia.dba_mining_model_views IS 'All detail views of models, as Oracle''s view of the same name.';

CREATE OR REPLACE VIEW pythia.all_mining_model_views WITH (security_barrier = true) AS
SELECT owner, model_name, view_name, view_type
FROM pythia.catalog_view WHERE has_table_privilege(relation, 'SELECT');
COMMENT ON VIEW pythia.all_mining_model_views IS 'The detail views of the models that the caller may score with, as Oracle''s view of the same name.';

CREATE OR REPLACE VIEW pythia.user_mining_model_views WITH (security_barrier = true) AS
SELECT model_name, view_name, view_type
FROM pythia.catalog_view WHERE owner_id = to_regrole(quote_ident(current_user));
COMMENT ON VIEW pythia.user_mining_model_views IS 'The detail views of the models that the caller owns, as Oracle''s view of the same name.';

-- Settings -----------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW pythia.dba_mining_model_settings AS
SELECT owner, model_name, setting_name, setting_value, setting_type
FROM pythia.catalog_setting;
COMMENT ON VIEW pythia.dba_mining_model_settings IS 'All settings of models, as Oracle''s view of the same name.';

CREATE OR REPLACE VIEW pythia.all_mining_model_settings WITH (security_barrier = true) AS
SELECT owner, model_name, setting_name, setting_value, setting_type
FROM pythia.catalog_setting WHERE has_table_privilege(relation, 'SELECT');
COMMENT ON VIEW pythia.all_mining_model_settings IS 'The settings of the models that the caller may score with, as Oracle''s view of the same name.';

CREATE OR REPLACE VIEW pythia.user_mining_model_settings WITH (security_barrier = true) AS
SELECT model_name, setting_name, setting_value, setting_type
FROM pythia.catalog_setting WHERE owner_id = to_regrole(quote_ident(current_user));
COMMENT ON VIEW pythia.user_mining_model_settings IS 'The settings of the models that the caller owns, as Oracle''s view of the same name.';

-- Shared weights -----------------------------------------------------------------------------------------------------------

-- What the engine says about the memory of the models that the caller may score with. A model that no worker has used since
-- the engine's start has status INIT and no bytes.
CREATE OR REPLACE FUNCTION pythia.shared_models()
RETURNS TABLE (relation regclass, populate_status text, metadata_bytes bigint, initializer_bytes bigint, prepacked_bytes bigint,
               pins integer, address text)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 10 SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known jsonb;
BEGIN
    IF EXISTS (SELECT FROM pythia.model m WHERE m.inmemory) THEN
        known := pythia.engine_status() -> 'memory';
    END IF;
    RETURN QUERY
    SELECT m.relation, coalesce(e.status, 'INIT'), coalesce(e.metadata_bytes, 0), coalesce(e.initializer_bytes, 0),
           coalesce(e.prepacked_bytes, 0), coalesce(e.pins, 0), e.address
    FROM pythia.model m
    LEFT JOIN jsonb_to_recordset(known) AS e(
        package text, status text, metadata_bytes bigint, initializer_bytes bigint, prepacked_bytes bigint, pins integer, address text)
        ON e.package = m.package
    WHERE m.inmemory AND has_table_privilege(pythia.calling_role(), m.relation, 'SELECT');
END $$;

CREATE OR REPLACE VIEW pythia.v$im_onnx_model AS
SELECT pythia.oracle_name(pg_get_userbyid(c.relowner)) AS owner, pythia.oracle_name(c.relname) AS name,
       row_number() OVER (ORDER BY c.oid) AS "slot#", s.populate_status, s.metadata_bytes AS metadata_size,
       s.initializer_bytes AS initializer_size, s.prepacked_bytes AS prepacked_size, s.pins AS pin_count, 0 AS con_id
FROM pythia.shared_models() AS s
JOIN pg_class c ON c.oid = s.relation;
COMMENT ON VIEW pythia.v$im_onnx_model IS 'Models whose weights all sessions share, as Oracle''s view of the same name; sizes in bytes.';

CREATE OR REPLACE VIEW pythia.v$im_onnx_segment AS
SELECT pythia.oracle_name(pg_get_userbyid(c.relowner)) AS owner, pythia.oracle_name(c.relname) AS name,
       s.address, g.seg_size, g.type, s.populate_status, 0 AS con_id
FROM pythia.shared_models() AS s
JOIN pg_class c ON c.oid = s.relation,
LATERAL (VALUES ('METADATA', s.metadata_bytes), ('INITIALIZER', s.initializer_bytes), ('PREPACKED WEIGHTS', s.prepacked_bytes)) AS g(type, seg_size);
COMMENT ON VIEW pythia.v$im_onnx_segment IS 'The parts of shared models in memory, as Oracle''s view of the same name; sizes in bytes.';
