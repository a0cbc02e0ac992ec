-- Scoring with models of every function: Oracle's operators as plain functions.
--
-- Data travel as a JSON object of attributes: names without regard to case, extra ones ignored, missing ones NULL. The answer
-- of the engine is one array literal with an entry a record.

-- Check that the caller may use an operator on a model and return what the engine wants to know. Called by our own functions
-- only, which pin the search_path and run as the schema's owner.
-- attribute: the one input of vector_embedding; as_text says whether it is a text.
CREATE OR REPLACE FUNCTION pythia.scoring_package(
    model regclass, operator text, attribute text DEFAULT NULL,
    OUT package text, OUT inmemory boolean, OUT as_text boolean)
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
    IF NOT (CASE target.function
           WHEN 'embedding' THEN operator = 'vector_embedding'
           WHEN 'regression' THEN operator = 'prediction'
           WHEN 'classification' THEN operator IN ('prediction', 'prediction_probability', 'prediction_set')
           ELSE operator IN ('cluster_id', 'cluster_probability', 'cluster_distance', 'cluster_set') END) THEN
        PERFORM pythia.refuse_operator(target.relation, target.function, operator);
    END IF;
    IF attribute IS NOT NULL THEN
        IF upper(target.spec #>> '{attributes,0,name}') <> upper(attribute) THEN
            RAISE EXCEPTION 'model "%" has no attribute "%"', target.relation, attribute
                USING ERRCODE = '42703', HINT = format('Its attribute is "%s".', target.spec #>> '{attributes,0,name}');
        END IF;
        as_text := target.spec #>> '{attributes,0,type}' = 'text';
    END IF;
    package := target.package;
    -- The engine holds a package once, whatever its names are: it is shared when one of them is.
    inmemory := target.inmemory OR target.external_data
        AND EXISTS (SELECT FROM pythia.model m WHERE m.package = target.package AND m.inmemory);
END $$;

CREATE OR REPLACE FUNCTION pythia.refuse_operator(model regclass, function text, operator text) RETURNS void
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    wanted text := CASE
        WHEN operator = 'prediction' THEN 'a regression or classification'
        WHEN operator LIKE 'prediction%' THEN 'a classification'
        WHEN operator LIKE 'cluster%' THEN 'a clustering'
        WHEN operator = 'vector_embedding' THEN 'an embedding' END;
BEGIN
    IF wanted IS NULL THEN
        RAISE EXCEPTION 'unrecognized scoring operator "%"', operator
            USING ERRCODE = '22023', HINT = 'Operators: prediction, prediction_probability, prediction_set, cluster_id, '
                'cluster_probability, cluster_distance, cluster_set, vector_embedding.';
    END IF;
    RAISE EXCEPTION 'model "%" is % % model, % needs % model', model,
        CASE WHEN function ^@ 'e' THEN 'an' ELSE 'a' END, function, upper(operator), wanted
        USING ERRCODE = '42809';
END $$;

-- Score one record and return the operator's answer as text: a value, or the rows of a set as a JSON array.
CREATE OR REPLACE FUNCTION pythia.score_one(model regclass, operator text, arguments json, data jsonb) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    target record;
BEGIN
    IF data IS NULL OR jsonb_typeof(data) = 'null' THEN
        RETURN NULL;
    END IF;
    IF jsonb_typeof(data) <> 'object' THEN
        RAISE EXCEPTION 'the data of a model must be a JSON object of attributes, not %', jsonb_typeof(data)
            USING ERRCODE = '22023', HINT = 'Write jsonb_build_object(''AGE'', age) or to_jsonb(t) of a row t.';
    END IF;
    target := pythia.scoring_package(model, operator);
    RETURN ((pythia.engine_call('score', json_build_array(
        target.package, target.inmemory, 1, operator, arguments, json_build_array(data))::text))[1]::text[])[1];
END $$;

-- Single records -----------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION pythia.prediction(model regclass, data jsonb, result anyelement DEFAULT NULL::double precision)
RETURNS anyelement
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER COST 1000000 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN pythia.score_one(model, 'prediction', '[]', data);
END $$;
COMMENT ON FUNCTION pythia.prediction(regclass, jsonb, anyelement) IS
    'The value that a regression model predicts, or the class of a classification model, in the type of the third argument.';

CREATE OR REPLACE FUNCTION pythia.prediction_probability(model regclass, data jsonb, class text DEFAULT NULL)
RETURNS double precision
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER COST 1000000 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN pythia.score_one(model, 'prediction_probability', json_build_array(class), data);
END $$;
COMMENT ON FUNCTION pythia.prediction_probability(regclass, jsonb, text) IS
    'The probability of a class, or of the most likely one.';

-- In the type of the last argument. The type of columns cannot follow from a default, hence two functions.
CREATE OR REPLACE FUNCTION pythia.prediction_set(
    model regclass, data jsonb, best_n integer, cutoff double precision, result anyelement)
RETURNS TABLE (prediction anyelement, probability double precision)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER COST 1000000 ROWS 10 SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    entry jsonb;
BEGIN
    FOR entry IN
        SELECT e FROM jsonb_array_elements(
            pythia.score_one(model, 'prediction_set', json_build_array(best_n, cutoff), data)::jsonb) AS e
    LOOP
        prediction := entry ->> 'prediction';
        probability := entry ->> 'probability';
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION pythia.prediction_set(regclass, jsonb, integer, double precision, anyelement) IS
    'The classes, in the type of the last argument, and their probabilities, most likely first: at most best_n, none below cutoff.';

CREATE OR REPLACE FUNCTION pythia.prediction_set(
    model regclass, data jsonb, best_n integer DEFAULT NULL, cutoff double precision DEFAULT NULL)
RETURNS TABLE (prediction text, probability double precision)
LANGUAGE sql STABLE PARALLEL RESTRICTED COST 1000000 ROWS 10
BEGIN ATOMIC
    SELECT p.prediction, p.probability FROM pythia.prediction_set(model, data, best_n, cutoff, NULL::text) AS p;
END;
COMMENT ON FUNCTION pythia.prediction_set(regclass, jsonb, integer, double precision) IS
    'The classes, as text, and their probabilities, most likely first: at most best_n, none below cutoff.';

CREATE OR REPLACE FUNCTION pythia.cluster_id(model regclass, data jsonb, result anyelement DEFAULT NULL::numeric)
RETURNS anyelement
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER COST 1000000 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN pythia.score_one(model, 'cluster_id', '[]', data);
END $$;
COMMENT ON FUNCTION pythia.cluster_id(regclass, jsonb, anyelement) IS 'The cluster that a record belongs to.';

CREATE OR REPLACE FUNCTION pythia.cluster_probability(model regclass, data jsonb, cluster_id text DEFAULT NULL)
RETURNS double precision
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER COST 1000000 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN pythia.score_one(model, 'cluster_probability', json_build_array(cluster_id), data);
END $$;
COMMENT ON FUNCTION pythia.cluster_probability(regclass, jsonb, text) IS
    'The probability of a cluster, or of the most likely one.';

CREATE OR REPLACE FUNCTION pythia.cluster_distance(model regclass, data jsonb, cluster_id text DEFAULT NULL)
RETURNS double precision
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER COST 1000000 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN pythia.score_one(model, 'cluster_distance', json_build_array(cluster_id), data);
END $$;
COMMENT ON FUNCTION pythia.cluster_distance(regclass, jsonb, text) IS
    'The distance from a cluster''s centre, or from the nearest one.';

CREATE OR REPLACE FUNCTION pythia.cluster_set(
    model regclass, data jsonb, top_n integer DEFAULT NULL, cutoff double precision DEFAULT NULL)
RETURNS TABLE (cluster_id numeric, probability double precision)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER COST 1000000 ROWS 10 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT (e ->> 'cluster_id')::numeric, (e ->> 'probability')::double precision
    FROM jsonb_array_elements(
        pythia.score_one(model, 'cluster_set', json_build_array(top_n, cutoff), data)::jsonb) AS e;
END $$;
COMMENT ON FUNCTION pythia.cluster_set(regclass, jsonb, integer, double precision) IS
    'The clusters and their probabilities, most likely first: at most top_n, and none below cutoff.';

-- Many records -------------------------------------------------------------------------------------------------------------

-- One engine call for all inputs, each the text of a JSON object; returns one row an input, in order.
-- arguments: as the operators take them, [class] or [n, cutoff]; total: how many inputs the whole statement will send, for
-- progress displays.
CREATE OR REPLACE FUNCTION pythia.scoring_batch(
    model regclass, operator text, arguments jsonb, inputs text[], total bigint DEFAULT NULL)
RETURNS TABLE (input text, output text)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER COST 1000000 ROWS 256 SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target record;
    lines  text[];
BEGIN
    IF array_ndims(inputs) > 1 THEN
        RAISE EXCEPTION 'inputs must be a one-dimensional array' USING ERRCODE = '2202E';
    END IF;
    target := pythia.scoring_package(model, lower(operator));
    IF coalesce(cardinality(inputs), 0) = 0 THEN
        RETURN;
    END IF;
    -- The cast makes sure that each input is one JSON value and nothing more. The call stands outside of the query: to estimate the
    -- rows of unnest() the planner would make it, too.
    lines := (pythia.engine_call('score', json_build_array(
        target.package, target.inmemory, coalesce(total, cardinality(inputs)), lower(operator), coalesce(arguments, '[]'),
        inputs::jsonb[])::text))[1]::text[];
    RETURN QUERY SELECT t.input, t.line FROM unnest(inputs, lines) AS t(input, line);
END $$;
COMMENT ON FUNCTION pythia.scoring_batch(regclass, text, jsonb, text[], bigint) IS
    'The answers of an operator for an array of records by one engine call.';
