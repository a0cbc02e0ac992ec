-- How accurate an index has been for its users: what it finds now for the query vectors that they brought (pythia.vector_query),
-- against an exact search of the same version. The engine's keeper writes the queries, a sample of them.

-- The share, in percent, of the nearest rows that an index finds for a captured query. The exact search gives all rows that are
-- as near as the last one, so whichever of these is found counts.
CREATE OR REPLACE FUNCTION pythia.captured_accuracy(index_id integer, query text, k integer, target integer) RETURNS numeric
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    found  text[];
    truth  text[];
    reason text;
BEGIN
    EXECUTE format(
        'SELECT f.keys, t.keys, coalesce(f.facts, t.facts) ->> ''exact'' '
        'FROM vecsys.candidates_%1$s($1::%2$s, $2, $3, NULL, false) AS f, vecsys.candidates_%1$s($1::%2$s, $2, $4, NULL, false) AS t',
        index_id, (SELECT n.vector_type FROM pythia.vector_index_names(index_id) AS n))
    INTO found, truth, reason
    USING query, k, jsonb_build_object('accuracy', target, 'measuring', true), '{"exact": true, "measuring": true}'::jsonb;
    IF reason IS NOT NULL THEN
        RAISE EXCEPTION '%', reason USING ERRCODE = '55000';
    END IF;
    RETURN coalesce((SELECT 100.0 * count(*) FILTER (WHERE u.key = ANY (truth)) / count(*) FROM unnest(found) AS u(key) HAVING count(*) > 0), 100);
END $$;

-- Search again for what users have searched between two times, and keep what was found. Returns the report's number; NULL, with a
-- warning, where there is nothing to report or no version to ask. The last 100 reports of an index are kept.
CREATE OR REPLACE FUNCTION pythia.report_accuracy(index_id integer, start_time timestamptz, end_time timestamptz) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    since   CONSTANT timestamptz := coalesce(start_time, clock_timestamp() - interval '24 hours');
    until   CONSTANT timestamptz := coalesce(end_time, clock_timestamp());
    task    bigint;
    problem text;
BEGIN
    IF NOT pythia.may_see_vector_index(index_id) THEN
        RAISE EXCEPTION 'permission denied for vector index %', index_id USING ERRCODE = '42501';
    ELSIF since > until THEN
        RAISE EXCEPTION 'start_time (%) is later than end_time (%)', since, until
            USING ERRCODE = '22023', HINT = 'Without a start_time a report begins 24 hours ago.';
    END IF;
    task := nextval('pythia.vector_accuracy_task');
    BEGIN
        INSERT INTO pythia.vector_accuracy_report (
            task_id, index_id, min_target_accuracy, max_target_accuracy, num_vectors,
            median_achieved_accuracy, min_achieved_accuracy, max_achieved_accuracy)
        SELECT task, report_accuracy.index_id, 10 * a.decile + 1, 10 * a.decile + 10, count(*),
               round(percentile_cont(0.5) WITHIN GROUP (ORDER BY a.achieved)::numeric, 2), round(min(a.achieved), 2), round(max(a.achieved), 2)
        FROM (SELECT (q.target - 1) / 10 AS decile, pythia.captured_accuracy(q.index_id, q.query, q.k, q.target) AS achieved
              FROM pythia.vector_query q JOIN pythia.vector_index i ON i.id = q.index_id
              WHERE q.index_id = report_accuracy.index_id AND q.captured_at BETWEEN since AND until
                AND q.target IS NOT NULL AND q.dimensions = i.dimensions) AS a
        GROUP BY a.decile;
        IF NOT FOUND THEN
            problem := format('no query vectors were captured between %s and %s', since, until);
        END IF;
    EXCEPTION WHEN object_not_in_prerequisite_state THEN
        GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT;
    END;
    IF problem IS NOT NULL THEN
        RAISE WARNING 'no accuracy report: %', problem;
        RETURN NULL;
    END IF;
    DELETE FROM pythia.vector_accuracy_report r
    WHERE r.index_id = report_accuracy.index_id
      AND r.task_id < (SELECT min(t.task_id) FROM (
          SELECT DISTINCT o.task_id FROM pythia.vector_accuracy_report o
          WHERE o.index_id = report_accuracy.index_id ORDER BY o.task_id DESC LIMIT 100) AS t);
    RETURN task;
END $$;

CREATE OR REPLACE FUNCTION dbms_vector.index_accuracy_report(
    owner_name text, index_name text, start_time timestamptz DEFAULT NULL, end_time timestamptz DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    RETURN pythia.report_accuracy(pythia.owned_index_id(owner_name, index_name), start_time, end_time);
END $$;
COMMENT ON FUNCTION dbms_vector.index_accuracy_report(text, text, timestamptz, timestamptz) IS
    'Measure an index with the query vectors that users have searched for; the result is in dba_vector_index_accuracy_report.';

CREATE OR REPLACE VIEW pythia.dba_vector_index_accuracy_report WITH (security_invoker = true) AS
SELECT r.task_id, r.task_time::timestamp(6) AS task_time, i.owner AS owner_name, i.index_name,
       CASE i.organization WHEN 'INMEMORY NEIGHBOR GRAPH' THEN 'HNSW' ELSE 'IVF' END AS index_type,
       r.min_target_accuracy, r.max_target_accuracy, r.num_vectors,
       r.median_achieved_accuracy, r.min_achieved_accuracy, r.max_achieved_accuracy
FROM pythia.vector_accuracy_report r
JOIN pythia.catalog_vector_index i ON i.id = r.index_id;
COMMENT ON VIEW pythia.dba_vector_index_accuracy_report IS 'Reports of DBMS_VECTOR.INDEX_ACCURACY_REPORT, as Oracle''s view of the same name.';
