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

CREATE OR REPLACE FUNCTION pythia.accuracy_sentence(
    index_id integer, query text, k integer, target integer, parameters jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted   CONSTANT integer := coalesce(
        target, (SELECT p.value::integer FROM jsonb_each(parameters) p WHERE lower(p.key) = 'accuracy'),
        CASE WHEN parameters IS NULL THEN (SELECT i.target_accuracy FROM pythia.vector_index i WHERE i.id = index_id) END);
    options  CONSTANT jsonb := CASE WHEN wanted IS NOT NULL THEN jsonb_build_object('accuracy', wanted)
        ELSE jsonb_strip_nulls(jsonb_build_object(
            'efsearch', (SELECT p.value FROM jsonb_each(parameters) p WHERE lower(p.key) = 'efsearch'),
            'probes', (SELECT p.value FROM jsonb_each(parameters) p WHERE lower(p.key) IN ('probes', 'neighbor partition probes')))) END;
    achieved numeric;
BEGIN
    IF k IS NULL OR k < 1 OR wanted NOT BETWEEN 1 AND 100 OR options = '{}' THEN
        RAISE EXCEPTION 'top_k must be positive, and target_accuracy from 1 to 100 or query_param like {"efsearch": 100}'
            USING ERRCODE = '22023';
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
                owner_name text, index_name text, qv %1$s, top_k integer, target_accuracy integer DEFAULT NULL, query_param jsonb DEFAULT NULL)
            RETURNS text
            LANGUAGE plpgsql VOLATILE
            AS $body$
            BEGIN
                RETURN pythia.accuracy_sentence(pythia.owned_index_id(owner_name, index_name), qv::pg_catalog.text, top_k, target_accuracy, query_param);
            END $body$;
            COMMENT ON FUNCTION dbms_vector.index_accuracy_query(text, text, %1$s, integer, integer, jsonb) IS
                'Say how many of the nearest rows a search finds, against the accuracy that was asked for.'$$, type);
    END LOOP;
END $do$;
