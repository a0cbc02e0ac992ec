-- The memory of vector indexes: what one would take, what all may take, and the organization that a build has chosen.

-- What may be taken and what is ------------------------------------------------------------------------------------------------

-- Of the whole engine, in bytes; NULL while it is not there.
CREATE OR REPLACE FUNCTION pythia.vector_memory(OUT budget bigint, OUT used bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    facts CONSTANT jsonb := (pythia.engine_call('status', '', optional => true))[1]::jsonb -> 'vector_memory';
BEGIN
    budget := facts ->> 'budget';
    used := facts ->> 'used';
END $$;
COMMENT ON FUNCTION pythia.vector_memory() IS
    'Bytes that the vector indexes of all databases may take together (the setting vector_memory_bytes), and those that they have.';

-- Large segments, small ones, and what is beside them. Segments are mapped files: the kernel keeps what is used.
CREATE OR REPLACE VIEW pythia.v$vector_memory_pool WITH (security_invoker = true) AS
SELECT u.pool, CASE u.pool WHEN '1MB POOL' THEN coalesce((SELECT m.budget FROM pythia.vector_memory() AS m), u.bytes) ELSE u.bytes END AS alloc_bytes,
       u.bytes AS used_bytes,
       CASE WHEN EXISTS (SELECT FROM pythia.vector_index i WHERE i.error_code = '53200') THEN 'OUT OF MEMORY' ELSE 'DONE' END AS populate_status,
       0 AS con_id
FROM (
    SELECT p.pool, coalesce(sum(b.bytes), 0)::bigint AS bytes
    FROM (VALUES ('1MB POOL'), ('64KB POOL'), ('IM POOL METADATA')) AS p(pool)
    LEFT JOIN (
        SELECT CASE s ->> 'kind' WHEN 'flat' THEN '64KB POOL' ELSE '1MB POOL' END AS pool, (s ->> 'bytes')::bigint AS bytes
        FROM pythia.vector_index_newest n, jsonb_array_elements(n.segments) AS s
        UNION ALL SELECT 'IM POOL METADATA' AS pool, (pythia.vector_index_journal(i.id)).bytes AS bytes FROM pythia.vector_index i) AS b
        ON b.pool = p.pool
    GROUP BY p.pool) AS u;
COMMENT ON VIEW pythia.v$vector_memory_pool IS
    'Bytes of vector indexes, as Oracle''s view of the same name: large segments, flat ones, and journals. The first has the engine''s whole budget.';

-- What an index would take -----------------------------------------------------------------------------------------------------

-- What the engine says of an index of a type, HNSW or IVF. `contents`: rows, dimensions, vector_type, and optionally key_type,
-- entries (of a sparse vector), text_key and column_bytes.
CREATE OR REPLACE FUNCTION pythia.vector_memory_advice(index_type text, contents jsonb, parameters jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    organization CONSTANT text := CASE upper(btrim(index_type)) WHEN 'HNSW' THEN 'INMEMORY NEIGHBOR GRAPH' WHEN 'IVF' THEN 'NEIGHBOR PARTITIONS' END;
    accuracy     CONSTANT text := parameters ->> 'accuracy';
BEGIN
    IF organization IS NULL THEN
        RAISE EXCEPTION 'unknown type "%" of a vector index', index_type USING ERRCODE = '22023', HINT = 'Use HNSW or IVF.';
    END IF;
    IF accuracy !~ '^([1-9]\d?|100)$' THEN
        PERFORM pythia.refuse_accuracy(accuracy);
    END IF;
    RETURN (pythia.engine_call('advise', jsonb_build_array(
        CASE upper(btrim(index_type)) WHEN 'HNSW' THEN 'graph' ELSE 'partitions' END, contents,
        pythia.vector_index_parameters(coalesce(parameters, '{}') - 'accuracy', organization))::text))[1];
END $$;

-- The contents of an index over vectors of one of Oracle's formats.
CREATE OR REPLACE FUNCTION pythia.vector_format_contents(num_vectors numeric, dim_count numeric, dim_type text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kind CONSTANT text := CASE upper(btrim(dim_type)) WHEN 'FLOAT32' THEN 'vector' WHEN 'FLOAT16' THEN 'halfvec' WHEN 'BINARY' THEN 'bit' END;
BEGIN
    IF kind IS NULL THEN
        RAISE EXCEPTION 'vectors of format % cannot be indexed', dim_type
            USING ERRCODE = '0A000', HINT = 'Use FLOAT32, FLOAT16 or BINARY; for sparse vectors name a table and its column.';
    END IF;
    IF num_vectors NOT BETWEEN 0 AND 1e12 OR dim_count NOT BETWEEN 1 AND 65535 OR num_vectors + dim_count IS NULL THEN
        RAISE EXCEPTION 'num_vectors must not be negative and dim_count from 1 to 65535, not % and %', num_vectors, dim_count USING ERRCODE = '22023';
    END IF;
    RETURN jsonb_build_object('rows', round(num_vectors), 'dimensions', round(dim_count), 'vector_type', kind);
END $$;

-- A table by Oracle's pair of owner and name. The owner is a role or, as it is the same in Oracle, the table's schema; without one
-- the search_path counts, and a name with a schema speaks for itself.
CREATE OR REPLACE FUNCTION pythia.owned_relation(table_owner text, table_name text) RETURNS regclass
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    owner CONSTANT name := (pg_catalog.parse_ident(table_owner))[1];
    found pg_catalog.regclass;
BEGIN
    IF owner IS NULL OR pg_catalog.cardinality(pg_catalog.parse_ident(table_name)) OPERATOR(pg_catalog.>) 1 THEN
        RETURN pythia.table_relation(table_name);
    END IF;
    SELECT c.oid INTO found
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    WHERE c.relname OPERATOR(pg_catalog.=) (pg_catalog.parse_ident(table_name))[1]::pg_catalog.name AND c.relkind IN ('r', 'p')
      AND (n.nspname OPERATOR(pg_catalog.=) owner OR pg_catalog.pg_get_userbyid(c.relowner) OPERATOR(pg_catalog.=) owner)
    ORDER BY n.nspname OPERATOR(pg_catalog.=) owner DESC, c.oid LIMIT 1;
    IF found IS NULL THEN
        RAISE EXCEPTION 'relation "%.%" does not exist', table_owner, table_name USING ERRCODE = '42P01';
    END IF;
    RETURN found;
END $$;

-- What the catalog says of a column with vectors and of the key of its table, as an index would have them.
CREATE OR REPLACE FUNCTION pythia.vector_column_facts(
    relation regclass, column_name text, OUT "table" text, OUT "column" text, OUT key text, OUT key_type text, OUT vector_type text,
    OUT counted boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a CONSTANT pg_attribute := pythia.table_column(relation, pythia.column_identifier(relation, column_name));
BEGIN
    vector_type := (pythia.vector_column_type(a)).type;
    IF vector_type IS NULL THEN
        RAISE EXCEPTION 'column "%" has type %, which is not a vector type', a.attname, format_type(a.atttypid, a.atttypmod)
            USING ERRCODE = '42804', HINT = 'Vector types are vector, halfvec, sparsevec, bit and varbit.';
    END IF;
    "column" := quote_ident(a.attname);
    SELECT format('%I.%I', n.nspname, c.relname), c.reltuples > 0 INTO "table", counted
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
    SELECT quote_ident(k.name), k.family INTO key, key_type FROM pythia.table_key(relation) k WHERE k.columns = 1;
    key_type := coalesce(replace(key_type, 'numeric', 'text'), 'int');  -- a table without a key gets a number before it can be indexed
END $$;

-- The contents of an index over a column, from a sample, as the caller: rows as PostgreSQL estimates them, or counted where it
-- knows nothing of the table yet.
CREATE OR REPLACE FUNCTION pythia.vector_column_contents(relation regclass, column_name text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    f       record;
    result  jsonb;
    present text;
BEGIN
    SELECT * INTO f FROM pythia.vector_column_facts(relation, column_name);
    present := format('FROM %s WHERE %s IS NOT NULL', f."table", f."column");
    EXECUTE format(
        'SELECT jsonb_build_object(''dimensions'', coalesce(max(%s), 1), ''entries'', ceil(coalesce(avg(%s), 0)), '
        '''text_key'', ceil(coalesce(avg(octet_length(k::text)), 16))) FROM (SELECT %s AS v, %s AS k %s LIMIT 1000) AS s',
        CASE f.vector_type WHEN 'bit' THEN 'length(v)' WHEN 'sparsevec' THEN 'split_part(v::text, ''/'', 2)::integer'
                           ELSE '@extschema:vector@.vector_dims(v)' END,
        CASE f.vector_type WHEN 'sparsevec' THEN 'length(v::text) - length(replace(v::text, '':'', ''''))' ELSE '0' END,
        f."column", coalesce(f.key, 'NULL'), present)
    INTO result;
    result := result || jsonb_build_object('vector_type', f.vector_type, 'key_type', f.key_type);
    IF f.counted THEN
        RETURN result || jsonb_build_object('rows', (SELECT round(e.rows) FROM pythia.estimate('SELECT ' || present) AS e));
    END IF;
    EXECUTE 'SELECT $1 || jsonb_build_object(''rows'', count(*)) ' || present INTO result USING result;
    RETURN result;
END $$;

-- What a build has chosen ------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION pythia.chosen_organization(i pythia.vector_index) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
RETURN coalesce(i.organization, (SELECT n.facts ->> 'organization' FROM pythia.vector_index_newest n WHERE n.index_id = i.id), 'NEIGHBOR PARTITIONS');

-- A line about how an index got its organization; NULL for one that was told, or is too small to need any.
CREATE OR REPLACE FUNCTION pythia.race_line(index_id integer) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
RETURN (
    SELECT format('Organization: %s, chosen with %s of %s rows: graph %s, partitions %s', n.facts ->> 'organization',
                  r.race ->> 'sample_rows', r.race ->> 'rows', c.graph, c.partitions)
    FROM pythia.vector_index_newest n,
    LATERAL (SELECT nullif(n.facts -> 'race', 'null') AS race) AS r,
    LATERAL (
        SELECT max(w.said) FILTER (WHERE w.key = 'graph') AS graph, max(w.said) FILTER (WHERE w.key = 'partitions') AS partitions
        FROM (SELECT m.key, concat(round(m.value::numeric), ' us', CASE WHEN r.race -> 'reached' ->> m.key = 'false' THEN ', exact' END) AS said
              FROM jsonb_each_text(r.race -> 'microseconds') AS m) AS w) AS c
    WHERE n.index_id = race_line.index_id AND r.race IS NOT NULL);
