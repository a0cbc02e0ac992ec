-- What vector indexes are and how they are doing. A role sees those whose table it may SELECT from; members of pg_monitor see all.
-- Oracle's columns that have nothing to show here are NULL. Names are shown as Oracle does, sizes are in bytes.

-- The journal of an index: its rows, those that the newest version does not contain, its size.
CREATE OR REPLACE FUNCTION pythia.vector_index_journal(index_id integer, OUT rows bigint, OUT pending bigint, OUT bytes bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    newest pg_snapshot := (SELECT v.snapshot FROM pythia.vector_index_version v
                           WHERE v.index_id = vector_index_journal.index_id ORDER BY v.version DESC LIMIT 1);
BEGIN
    IF pythia.may_see_vector_index(index_id) THEN
        EXECUTE format('SELECT count(*), count(*) FILTER (WHERE $1 IS NULL OR NOT pg_visible_in_snapshot(xid, $1)), '
                       'pg_total_relation_size(''vecsys.journal_%1$s'') FROM vecsys.journal_%1$s', index_id)
        INTO rows, pending, bytes USING newest;
    END IF;
END $$;
COMMENT ON FUNCTION pythia.vector_index_journal(integer) IS
    'Rows of a vector index''s journal, those that its newest version does not contain, and the journal''s size in bytes.';

CREATE OR REPLACE FUNCTION pythia.may_see_vector_index(index_id integer) RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (
    SELECT FROM pythia.vector_index i
    WHERE i.id = index_id AND (has_any_column_privilege(pythia.calling_role(), i.relation, 'SELECT')
                               OR pg_has_role(pythia.calling_role(), 'pg_monitor', 'USAGE')));

-- Facts of the newest version of each index; the keeper writes them.
CREATE OR REPLACE VIEW pythia.vector_index_newest WITH (security_invoker = true) AS
SELECT DISTINCT ON (v.index_id)
       v.index_id, v.version, v.rows, v.created_at, v.facts, coalesce(v.facts -> 'segments', '[]') AS segments,
       (v.facts ->> 'bytes')::bigint AS bytes,
       (SELECT sum((s ->> 'dead')::bigint)::bigint FROM jsonb_array_elements(v.facts -> 'segments') AS s) AS dead
FROM pythia.vector_index_version v
ORDER BY v.index_id, v.version DESC;
COMMENT ON VIEW pythia.vector_index_newest IS 'What the views of vector indexes stand on.';

CREATE OR REPLACE VIEW pythia.vector_index_status WITH (security_invoker = true) AS
SELECT i.id, i.name AS index_name, i.namespace AS schema, i.relation AS table_name, i.column_name, i.include_columns,
       i.vector_type, i.dimensions, coalesce(i.organization, n.facts ->> 'organization') AS organization, i.distance, i.parameters, i.status, i.error,
       i.progress ->> 'stage' AS stage, (i.progress ->> 'percent')::numeric AS percent,
       n.version, n.created_at AS version_at, (n.facts ->> 'built_seconds')::double precision AS built_seconds,
       n.rows, n.dead AS dead_rows, n.bytes, jsonb_array_length(n.segments) AS segments,
       (SELECT string_agg(format('%s %s', k.count, k.kind), ', ' ORDER BY k.kind)
        FROM (SELECT s ->> 'kind' AS kind, count(*) AS count FROM jsonb_array_elements(n.segments) AS s GROUP BY 1) AS k) AS segment_kinds,
       j.rows AS journal_rows, j.pending AS pending_rows, j.bytes AS journal_bytes,
       CASE WHEN j.pending > 0 THEN now() - n.created_at ELSE interval '0' END AS lag,
       i.target_accuracy, a.target AS measured_target, a.k AS measured_k, round((100 * a.mean)::numeric, 2) AS achieved_accuracy,
       round((100 * a.p5)::numeric, 2) AS achieved_p5, a.queries AS measured_queries, a.microseconds, a.source AS measured_with, a.measured_at,
       coalesce(u.used_count, 0) AS used_count, u.last_used_at
FROM pythia.vector_index i
LEFT JOIN pythia.vector_index_newest n ON n.index_id = i.id
LEFT JOIN pythia.vector_index_use u ON u.index_id = i.id
CROSS JOIN LATERAL pythia.vector_index_journal(i.id) AS j
LEFT JOIN LATERAL (
    SELECT * FROM pythia.vector_index_accuracy m WHERE m.index_id = i.id AND m.filter = 'none'
    ORDER BY abs(m.target - i.target_accuracy), abs(m.k - 10) LIMIT 1) AS a ON true;
COMMENT ON VIEW pythia.vector_index_status IS
    'Vector indexes: state, version, segments, journal, use, and the accuracy that was measured for the target and ten rows.';

-- Oracle's views ------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW pythia.catalog_vector_index WITH (security_invoker = true) AS
SELECT i.id, pythia.oracle_name(pg_get_userbyid(c.relowner)) AS owner, pythia.oracle_name(i.name) AS index_name,
       coalesce(i.organization, n.facts ->> 'organization', 'NEIGHBOR PARTITIONS') AS organization,
       i.distance, i.dimensions, i.vector_type, i.target_accuracy, i.parameters, i.include_columns,
       n.version, n.rows, n.bytes, coalesce(n.segments, '[]') AS segments, coalesce(u.used_count, 0) AS used_count,
       coalesce((n.facts ->> 'builds')::bigint, n.version) AS builds
FROM pythia.vector_index i
JOIN pg_class c ON c.oid = i.relation
LEFT JOIN pythia.vector_index_newest n ON n.index_id = i.id
LEFT JOIN pythia.vector_index_use u ON u.index_id = i.id;
COMMENT ON VIEW pythia.catalog_vector_index IS 'What Oracle''s views of vector indexes stand on.';

CREATE OR REPLACE VIEW pythia.v$vector_index WITH (security_invoker = true) AS
SELECT owner, index_name, NULL::text AS partition_name, organization AS index_organization, id AS index_objn,
       coalesce(bytes, 0) AS allocated_bytes, coalesce(bytes, 0) AS used_bytes, coalesce(rows, 0) AS num_vectors,
       greatest(builds - 1, 0) AS num_repop, used_count AS index_used_count, distance AS distance_type,
       dimensions AS index_dimensions,
       CASE vector_type WHEN 'bit' THEN 'BINARY' WHEN 'halfvec' THEN 'FLOAT16' ELSE 'FLOAT32' END AS index_dim_type,
       target_accuracy AS default_accuracy, 0 AS con_id
FROM pythia.catalog_vector_index;
COMMENT ON VIEW pythia.v$vector_index IS 'Vector indexes, as Oracle''s view of the same name.';

CREATE OR REPLACE VIEW pythia.v$vector_graph_index WITH (security_invoker = true) AS
SELECT i.owner, i.index_name, NULL::text AS partition_name, i.id AS index_objn, NULL::text AS anchor_address,
       'HNSW'::text AS index_graph_type, s.layers AS num_layers, coalesce(i.rows, 0) AS num_vectors,
       s.sparse_vectors AS sparse_layer_vectors, coalesce(s.neighbors, (i.parameters ->> 'neighbors')::integer) AS num_neighbors,
       coalesce(s.efconstruction, (i.parameters ->> 'efconstruction')::integer) AS efconstruction, s.edges AS total_edges,
       NULL::bigint AS ref_count, NULL::bigint AS query_dist_count, NULL::bigint AS creation_dist_count,
       NULL::bigint AS pruned_neighbors, coalesce(jsonb_array_length(i.segments), 0) AS num_snapshots, i.version AS max_snapshot,
       coalesce(i.bytes, 0) AS allocated_bytes, coalesce(i.bytes, 0) AS used_bytes, 0 AS con_id,
       array_to_string(i.include_columns, ', ') AS covering_cols
FROM pythia.catalog_vector_index i
CROSS JOIN LATERAL (
    SELECT max((e ->> 'layers')::integer) AS layers, sum((e ->> 'sparse_vectors')::bigint)::bigint AS sparse_vectors,
           max((e ->> 'neighbors')::integer) AS neighbors, max((e ->> 'efconstruction')::integer) AS efconstruction,
           sum((e ->> 'edges')::bigint)::bigint AS edges
    FROM jsonb_array_elements(i.segments) AS g, LATERAL (SELECT g || coalesce(g -> 'facts', '{}') AS e) AS f WHERE e ->> 'kind' = 'graph') AS s
WHERE i.organization = 'INMEMORY NEIGHBOR GRAPH';
COMMENT ON VIEW pythia.v$vector_graph_index IS 'Vector indexes that are graphs, as Oracle''s view of the same name.';

CREATE OR REPLACE VIEW pythia.v$vector_partitions_index WITH (security_invoker = true) AS
SELECT i.owner, i.index_name, NULL::text AS partition_name, i.id AS index_objn, NULL::text AS centroids_anchor_address,
       'IVF'::text AS index_partitions_type, coalesce(s.partitions, (i.parameters ->> 'partitions')::integer) AS num_neighbor_partitions,
       coalesce(i.rows, 0) AS num_vectors, s.least AS min_partition_vectors_count, s.most AS max_partition_vectors_count,
       i.used_count AS index_used_count, NULL::double precision AS avg_partitions_scanned, 0 AS con_id
FROM pythia.catalog_vector_index i
CROSS JOIN LATERAL (
    SELECT sum((e ->> 'partitions')::integer)::integer AS partitions, min((e ->> 'least')::integer) AS least,
           max((e ->> 'most')::integer) AS most
    FROM jsonb_array_elements(i.segments) AS g, LATERAL (SELECT g || coalesce(g -> 'facts', '{}') AS e) AS f WHERE e ->> 'kind' = 'partitions') AS s
WHERE i.organization = 'NEIGHBOR PARTITIONS';
COMMENT ON VIEW pythia.v$vector_partitions_index IS 'Vector indexes that are partitions, as Oracle''s view of the same name.';
