-- Scoring with embedding models.

-- Check that the caller may score with a model and return its cache key. Called by our own functions only, which pin the
-- search_path and run as the schema's owner.
CREATE OR REPLACE FUNCTION pythia.scoring_package(model regclass, mining_function text, attribute text) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    target  pythia.model;
    allowed boolean;
BEGIN
    SELECT * INTO target FROM pythia.model m WHERE m.relation = scoring_package.model;
    allowed := has_table_privilege(pythia.calling_role(), target.relation, 'SELECT');
    IF allowed IS NULL THEN  -- no such model, or its view was dropped
        RAISE EXCEPTION '"%" is not a model', scoring_package.model
            USING ERRCODE = '42704', HINT = 'The models that you may use: SELECT relation FROM pythia.model;';
    END IF;
    IF NOT allowed THEN
        RAISE EXCEPTION 'permission denied for model %', target.relation
            USING ERRCODE = '42501', HINT = format('GRANT SELECT ON %s TO %I;', target.relation, pythia.calling_role());
    END IF;
    IF target.function <> mining_function THEN
        RAISE EXCEPTION 'model "%" is a % model, not an % model', target.relation, target.function, mining_function
            USING ERRCODE = '42809';
    END IF;
    IF NOT upper(target.spec ->> 'attributes')::jsonb ? upper(attribute) THEN
        RAISE EXCEPTION 'model "%" has no attribute "%"', target.relation, attribute
            USING ERRCODE = '42703', HINT = format('Its attribute is "%s".', target.spec -> 'attributes' ->> 0);
    END IF;
    RETURN target.package;
END $$;

CREATE OR REPLACE FUNCTION pythia.vector_embedding(model regclass, data text, attribute text DEFAULT 'DATA')
RETURNS @extschema:vector@.vector
LANGUAGE plpgsql STABLE STRICT PARALLEL RESTRICTED SECURITY DEFINER COST 1000000 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (pythia.engine_call('embed', json_build_array(
        pythia.scoring_package(model, 'embedding', attribute), 1, array[data])::text))[1]::@extschema:vector@.vector;
END $$;
COMMENT ON FUNCTION pythia.vector_embedding(regclass, text, text) IS
    'The embedding of a text. NULL for NULL. Needs SELECT on the model''s view.';

-- The same in arrays: one engine call for all inputs. Returns one row an input, in order; a NULL input gives a NULL.
-- total: how many inputs the whole statement will send, for progress displays.
CREATE OR REPLACE FUNCTION pythia.vector_embedding_batch(
    model regclass, inputs text[], total bigint DEFAULT NULL, attribute text DEFAULT 'DATA')
RETURNS TABLE (input text, embedding @extschema:vector@.vector)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER COST 1000000 ROWS 256 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF array_ndims(inputs) > 1 THEN
        RAISE EXCEPTION 'inputs must be a one-dimensional array' USING ERRCODE = '2202E';
    END IF;
    RETURN QUERY
    SELECT t.input, t.line::@extschema:vector@.vector
    FROM unnest(inputs, pythia.engine_call('embed', json_build_array(
        pythia.scoring_package(model, 'embedding', coalesce(attribute, 'DATA')),
        coalesce(total, cardinality(inputs)), coalesce(inputs, '{}'))::text)) AS t(input, line);
END $$;
COMMENT ON FUNCTION pythia.vector_embedding_batch(regclass, text[], bigint, text) IS
    'The embeddings of an array of texts by one engine call.';

-- For generated columns and expression indexes, which take immutable functions only. The promise holds as long as the
-- model under the name stays the same; load a changed model under a new name.
CREATE OR REPLACE FUNCTION pythia.vector_embedding_immutable(model regclass, data text, attribute text DEFAULT 'DATA')
RETURNS @extschema:vector@.vector
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL RESTRICTED COST 1000000 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN pythia.vector_embedding(model, data, attribute);
END $$;
