-- How accurate one search is: what the index finds against all distances, as this statement sees the table.

-- The share, in percent, of the k nearest rows that a search finds. Rows as near as the k-th count as found. The zero that is
-- added keeps PostgreSQL from answering from an index of its own, which would be approximate too. "measuring" says that this is no
-- query of a user: it is neither counted nor captured.
CREATE OR REPLACE FUNCTION pythia.measured_accuracy(index_id integer, query text, k integer, options jsonb) RETURNS numeric
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i     record;
    share numeric;
BEGIN
    SELECT * INTO i FROM pythia.vector_index_names(index_id);
    EXECUTE format(
        'WITH found AS MATERIALIZED (SELECT t.%1$s %2$s $1::%3$s AS distance FROM %4$s t '
        'WHERE t.%5$s = ANY ((SELECT vecsys.nearest_%6$s($1::%3$s, $2, $3))::%7$s[]) AND t.%1$s IS NOT NULL ORDER BY (t.%1$s %2$s $1::%3$s) + 0 LIMIT $2), '
        'truth AS MATERIALIZED (SELECT t.%1$s %2$s $1::%3$s AS distance FROM %4$s t WHERE t.%1$s IS NOT NULL ORDER BY (t.%1$s %2$s $1::%3$s) + 0 LIMIT $2) '
        'SELECT (SELECT count(*) FROM found WHERE distance <= (SELECT max(distance) FROM truth))::numeric / nullif(count(*), 0) FROM truth',
        i."column", pythia.vector_operator(i.distance), i.vector_type, i."table", i.key, index_id, i.key_type)
    INTO share USING query, k, options || '{"measuring": true}';
    RETURN round(100 * coalesce(share, 1), 1);
END $$;

-- What query_param says, by the names that a search knows.
CREATE OR REPLACE FUNCTION pythia.accuracy_parameters(parameters jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known jsonb := (
        SELECT jsonb_object_agg(CASE n.name WHEN 'neighbor partition probes' THEN 'probes' ELSE n.name END, p.value)
        FROM jsonb_each(CASE jsonb_typeof(parameters) WHEN 'object' THEN parameters ELSE '{}' END) AS p,
        LATERAL (SELECT replace(lower(p.key), '_', ' ') AS name) AS n
        WHERE n.name IN ('accuracy', 'efsearch', 'probes', 'neighbor partition probes') AND p.value::text ~ '^[1-9]\d{0,8}$');
BEGIN
    IF parameters IS NOT NULL AND known IS NULL THEN
        RAISE EXCEPTION 'query_param has no parameter of a search: %', parameters
            USING ERRCODE = '22023', HINT = 'Give {"accuracy": n}, {"efsearch": n} or {"neighbor partition probes": n}, where n is a whole number from 1.';
    END IF;
    RETURN known;
END $$;

CREATE OR REPLACE FUNCTION pythia.accuracy_sentence(
    index_id integer, query text, k integer, target integer, parameters jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    given    CONSTANT jsonb := pythia.accuracy_parameters(parameters);
    wanted   CONSTANT integer := coalesce(
        target, (given ->> 'accuracy')::integer,
        CASE WHEN parameters IS NULL THEN (SELECT i.target_accuracy FROM pythia.vector_index i WHERE i.id = index_id) END);
    options  CONSTANT jsonb := CASE WHEN wanted IS NOT NULL THEN jsonb_build_object('accuracy', wanted) ELSE given END;
    achieved numeric;
BEGIN
    IF query IS NULL THEN
        RAISE EXCEPTION 'the query vector must not be null' USING ERRCODE = '22004';
    ELSIF k IS NULL OR k < 1 THEN
        RAISE EXCEPTION 'top_k must be at least 1, not %', coalesce(k::text, 'NULL')
            USING ERRCODE = '22023', HINT = 'It is the number of rows that a search returns.';
    ELSIF wanted NOT BETWEEN 1 AND 100 THEN
        PERFORM pythia.refuse_accuracy(wanted::text);
    END IF;
    achieved := trim_scale(pythia.measured_accuracy(index_id, query, k, options));
    RETURN CASE
        WHEN wanted IS NULL THEN format('Accuracy achieved is %s%%', achieved)
        WHEN achieved = wanted THEN format('Accuracy achieved (%s%%) is equal to the Target Accuracy requested (%s%%)', achieved, wanted)
        ELSE format('Accuracy achieved (%s%%) is %s%% %s than the Target Accuracy requested (%s%%)', achieved,
                    trim_scale(abs(achieved - wanted)), CASE WHEN achieved > wanted THEN 'higher' ELSE 'lower' END, wanted) END;
END $$;

-- For every type of vector; a parameter without a type is a text.
DO $do$
DECLARE
    type text;
BEGIN
    FOREACH type IN ARRAY ARRAY['text', '@extschema:vector@.vector', '@extschema:vector@.halfvec', 'bit varying', '@extschema:vector@.sparsevec'] LOOP
        EXECUTE format($$
            CREATE OR REPLACE FUNCTION dbms_vector.index_accuracy_query(
                owner_name text, index_name text, qv %1$s, top_k numeric, target_accuracy numeric DEFAULT NULL, query_param jsonb DEFAULT NULL)
            RETURNS text
            LANGUAGE plpgsql VOLATILE
            AS $body$
            BEGIN
                RETURN pythia.accuracy_sentence(
                    pythia.owned_index_id(owner_name, index_name), qv::pg_catalog.text, pythia.whole_number('top_k', top_k),
                    pythia.whole_number('target_accuracy', target_accuracy), query_param);
            END $body$;
            COMMENT ON FUNCTION dbms_vector.index_accuracy_query(text, text, %1$s, numeric, numeric, jsonb) IS
                'Say how many of the nearest rows a search finds, against the accuracy that was asked for.'$$, type);
    END LOOP;
END $do$;
