-- EXPLAIN of searches, and searching from plain SQL.

-- What a search in an index does, found by doing it, in lines; then PostgreSQL's plan of the statement.
-- query NULL: it depends on a row. index_id NULL: no index may be used, options says why.
CREATE OR REPLACE FUNCTION pythia.explain_vector_search(
    index_id integer, query text, k integer, options jsonb, source text, predicate jsonb, statement text)
RETURNS TABLE ("QUERY PLAN" text)
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    IF index_id IS NULL THEN
        RETURN QUERY VALUES (pg_catalog.concat('VECTOR INDEX not used: ', options ->> 'reason'));
    ELSE
        RETURN QUERY SELECT * FROM pythia.search_lines(index_id, query, k, options, source, predicate);
    END IF;
    IF statement IS NOT NULL THEN
        RETURN QUERY EXECUTE statement;
    END IF;
END $$;
COMMENT ON FUNCTION pythia.explain_vector_search(integer, text, integer, jsonb, text, jsonb, text) IS
    'What EXPLAIN of a statement with FETCH APPROX shows; pythiadb writes the call.';

DO $do$
DECLARE
    type text;
BEGIN
    FOREACH type IN ARRAY ARRAY['@extschema:vector@.vector', '@extschema:vector@.halfvec', 'bit varying', '@extschema:vector@.sparsevec'] LOOP
        EXECUTE format($$
            CREATE OR REPLACE FUNCTION pythia.explain_vector_search(
                index_id integer, query %s, k integer, options jsonb, source text, predicate jsonb, statement text)
            RETURNS TABLE ("QUERY PLAN" text)
            LANGUAGE sql VOLATILE
            BEGIN ATOMIC
                SELECT * FROM pythia.explain_vector_search(index_id, query::text, k, options, source, predicate, statement);
            END $$, type);
    END LOOP;
END $do$;

-- The lines about one search.
CREATE OR REPLACE FUNCTION pythia.search_lines(
    index_id integer, query text, k integer, options jsonb, source text, predicate jsonb)
RETURNS SETOF text
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    i        record;
    f        jsonb := '{}';
    keys     text[];
    strategy text;
BEGIN
    SELECT n.*, v.name, pythia.chosen_organization(v) AS organization, v.target_accuracy, v.namespace AS schema INTO i
    FROM pythia.vector_index_names(index_id) n, pythia.vector_index v WHERE v.id = index_id;
    IF query IS NOT NULL THEN
        PERFORM set_config('pythia.search', '{}', true);
        EXECUTE format('SELECT vecsys.nearest_%s($1::%s, $2, $3, $4, $5, true)', index_id, i.vector_type)
        INTO keys USING query, k, options, source, predicate;
        f := coalesce(nullif(current_setting('pythia.search'), '')::jsonb, '{}');
    END IF;
    strategy := CASE
        WHEN query IS NULL THEN 'SCAN'
        WHEN f ->> 'exact' <> 'true' OR source IS NULL AND (f ->> 'filter') = 'pre' AND NOT f ? 'version' THEN 'not used, EXACT'
        WHEN (f ->> 'filter') = 'pre' THEN concat(CASE WHEN f ? 'version' THEN 'SCAN, then ' END, 'PRE-FILTER')
        WHEN (f ->> 'filter') = 'post' THEN concat('SCAN ', CASE WHEN f ? 'passing' THEN 'IN-FILTER, ' END, 'POST-FILTER')
        WHEN predicate IS NOT NULL THEN 'SCAN IN-FILTER'
        WHEN (f -> 'exact')::boolean THEN 'SCAN EXACT'
        ELSE 'SCAN' END;
    RETURN NEXT format('VECTOR INDEX %s %s on %s.%I (%s.%s)',
        CASE i.organization WHEN 'INMEMORY NEIGHBOR GRAPH' THEN 'HNSW' ELSE 'IVF' END, strategy, i.schema, i.name, i.relation, i."column");
    RETURN QUERY SELECT '  ' || line FROM unnest(ARRAY[
        format('Distance: %s, k: %s, target accuracy: %s', i.distance, k, coalesce(
            options ->> 'accuracy', CASE WHEN options ?| '{efsearch,probes}' THEN 'by parameters' END, i.target_accuracy::text)),
        pythia.race_line(index_id),
        CASE WHEN jsonb_typeof(f -> 'exact') = 'string' THEN 'Exact because: ' || (f ->> 'exact') END,
        f ->> 'refused',
        CASE WHEN f ? 'version' THEN format('Version: %s, rows changed since: %s', f ->> 'version', f ->> 'journal') END,
        CASE WHEN f ? 'effort' THEN format('Effort: %s', (
            SELECT string_agg(format('%s %s', e.key, e.value), ', ' ORDER BY e.key) FROM jsonb_each_text(f -> 'effort') e)) END,
        CASE WHEN options ? 'filter' THEN format('Filter type: %s, by hint', upper(options ->> 'filter')) END,
        CASE WHEN f ? 'estimated' THEN format('Filter: %s rows estimated; %sasking the index: %s us', round((f ->> 'estimated')::numeric),
            'computing all their distances: ' || round(nullif(f ->> 'pre_cost', 'Infinity')::numeric) || ' us, ', round((f ->> 'index_cost')::numeric)) END,
        CASE WHEN f ? 'passing' THEN format('Filter in the index: %s rows pass%s', f ->> 'passing', CASE
            WHEN NOT f ? 'estimated' AND NOT options ? 'filter' THEN '; the index judges so few rows without an estimate' END) END,
        CASE WHEN f ? 'asked' THEN format('Candidates: %s asked, %s passed on to the statement', f ->> 'asked', cardinality(keys)) END,
        CASE WHEN f ? 'ms' THEN format('Time in the index: %s ms', f ->> 'ms') END,
        CASE WHEN options ? 'together' THEN format('Searched for all outer rows together: %sup to %s in one call', options ->> 'queries' || ' vectors, ', options ->> 'together')
             WHEN query IS NULL THEN concat('Searched once for each outer row', ': ' || (options ->> 'alone')) END]) AS u(line)
    WHERE line IS NOT NULL;
END $$;

CREATE OR REPLACE FUNCTION pythia.check_filter_type(filter_type text) RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    IF lower(filter_type) = 'in' THEN
        RAISE EXCEPTION 'pythia.vector_search cannot let the index judge its filter'
            USING ERRCODE = '0A000', HINT = 'A statement in AI SQL can, over INCLUDE columns: FETCH APPROX FIRST k ROWS ONLY.';
    ELSIF lower(filter_type) NOT IN ('pre', 'post') THEN
        RAISE EXCEPTION 'the filter type is pre or post, not %', filter_type USING ERRCODE = '22023';
    END IF;
END $$;

-- The nearest rows of an index's table, from any client. `filter` is a condition over the table's columns as in WHERE; it runs
-- with the caller's rights, and must not be put together from foreign input: for values use format() with %L. `filter_type` says
-- how it is applied, pre or post, instead of what seems cheaper.
CREATE OR REPLACE FUNCTION pythia.vector_search(
    index_name text, query text, k integer DEFAULT 10, filter text DEFAULT NULL, accuracy integer DEFAULT NULL,
    filter_type text DEFAULT NULL)
RETURNS TABLE (key text, distance double precision)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    index_id integer := pythia.vector_index_id(index_name);
    i        record;
    source   text;
BEGIN
    IF k IS NULL OR k < 1 THEN
        RAISE EXCEPTION 'the number of rows must be positive, not %', coalesce(k::text, 'NULL') USING ERRCODE = '22023';
    END IF;
    PERFORM pythia.check_filter_type(filter_type);
    SELECT * INTO i FROM pythia.vector_index_names(index_id);
    IF i.relation IS NULL THEN
        RAISE EXCEPTION 'permission denied for the table of vector index "%"', index_name
            USING ERRCODE = '42501', HINT = 'The role that the session has set needs SELECT on it, within SECURITY DEFINER functions too.';
    END IF;
    IF pg_catalog.row_security_active(i.relation) THEN  -- within a SECURITY DEFINER function its owner's policies hold, not the caller's
        filter := coalesce(filter, 'true');
        filter_type := 'pre';
    END IF;
    IF filter IS NOT NULL THEN
        source := format('SELECT t.%s, t.%s FROM %s t WHERE (%s)', i.key, i."column", i."table", filter);
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT t.%1$s::text, pythia.vector_distance(t.%2$s, $1::%4$s, %3$L) FROM %5$s t '
        'WHERE t.%1$s = ANY ((SELECT vecsys.nearest_%6$s($1::%4$s, $2, $3, $4))::%7$s[])%8$s ORDER BY 2, 1 LIMIT $2',
        i.key, i."column", i.distance, i.vector_type, i."table", index_id, i.key_type,
        ' AND (' || filter || ')')
    USING query, k, nullif(jsonb_strip_nulls(jsonb_build_object('accuracy', accuracy, 'filter', lower(filter_type))), '{}'), source;
END $$;
COMMENT ON FUNCTION pythia.vector_search(text, text, integer, text, integer, text) IS
    'Keys and distances of the rows nearest to a vector, found through a vector index.';
