-- What a vector index may be: reading what was written, and refusing what cannot work.

-- Reading what was written -------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION pythia.vector_organization(organization text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    CASE regexp_replace(upper(btrim(organization)), '\s+', ' ', 'g')
        WHEN 'INMEMORY NEIGHBOR GRAPH', 'INMEMORY GRAPH' THEN RETURN 'INMEMORY NEIGHBOR GRAPH';
        WHEN 'NEIGHBOR PARTITIONS', 'PARTITIONS' THEN RETURN 'NEIGHBOR PARTITIONS';
        ELSE
            IF organization IS NULL THEN
                RETURN NULL;
            END IF;
            RAISE EXCEPTION 'unknown organization "%" of a vector index', organization
                USING ERRCODE = '22023', HINT = 'Use INMEMORY NEIGHBOR GRAPH or NEIGHBOR PARTITIONS.';
    END CASE;
END $$;

-- The metric of an index over vectors of a type; without one COSINE, and HAMMING for bits.
CREATE OR REPLACE FUNCTION pythia.vector_index_metric(distance text, vector_type text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    metric  text := coalesce(upper(btrim(distance)), CASE vector_type WHEN 'bit' THEN 'HAMMING' ELSE 'COSINE' END);
    allowed text[] := CASE vector_type WHEN 'bit' THEN ARRAY['HAMMING', 'JACCARD']
                      ELSE ARRAY['COSINE', 'DOT', 'EUCLIDEAN', 'EUCLIDEAN_SQUARED', 'L2_SQUARED', 'MANHATTAN'] END;
BEGIN
    IF metric <> ALL (allowed) THEN
        RAISE EXCEPTION 'distance metric % is not available for an index on %', quote_ident(distance), vector_type
            USING ERRCODE = '22023', HINT = format('Use one of %s.', array_to_string(allowed, ', '));
    END IF;
    RETURN CASE metric WHEN 'L2_SQUARED' THEN 'EUCLIDEAN_SQUARED' ELSE metric END;
END $$;

-- The parameters of an index under their own names. Oracle's names and spellings are known; TYPE must fit the organization.
CREATE OR REPLACE FUNCTION pythia.vector_index_parameters(parameters jsonb, organization text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    given  record;
    known  record;
    result jsonb := '{}';
BEGIN
    IF jsonb_typeof(coalesce(parameters, '{}')) <> 'object' THEN
        RAISE EXCEPTION 'parameters of a vector index must be a JSON object' USING ERRCODE = '22023', HINT = 'For example {"neighbors": 32}.';
    END IF;
    FOR given IN SELECT p.key, regexp_replace(lower(p.key), '[ _]', '', 'g') AS name, p.value FROM jsonb_each_text(parameters) AS p LOOP
        IF given.name = 'type' THEN
            PERFORM pythia.check_vector_index_type(given.value, organization);
            CONTINUE;
        END IF;
        SELECT * INTO known FROM pythia.known_index_parameters() AS k WHERE given.name = ANY (k.spellings);
        IF known.name IS NULL THEN
            RAISE EXCEPTION 'unknown parameter "%" of a vector index', given.key
                USING ERRCODE = '22023', HINT = 'Graphs have NEIGHBORS and EFCONSTRUCTION, partitions have NEIGHBOR PARTITIONS, '
                                                'SAMPLES_PER_PARTITION and MIN_VECTORS_PER_PARTITION.';
        END IF;
        IF known.organization <> organization THEN
            RAISE EXCEPTION 'parameter "%" does not fit an index with ORGANIZATION %', given.key, organization
                USING ERRCODE = '22023', HINT = format('It is for ORGANIZATION %s.', known.organization);
        END IF;
        IF given.value IS NULL OR given.value !~ '^\d{1,9}$' OR given.value::integer NOT BETWEEN known.low AND known.high THEN
            RAISE EXCEPTION 'parameter "%" must be a whole number from % to %, not %', given.key, known.low, known.high, given.value
                USING ERRCODE = '22023', HINT = 'Leave it out for the usual value.';
        END IF;
        result := result || jsonb_build_object(known.name, given.value::integer);
    END LOOP;
    RETURN result;
END $$;

CREATE OR REPLACE FUNCTION pythia.known_index_parameters()
RETURNS TABLE (name text, organization text, spellings text[], low integer, high integer)
LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
    VALUES ('neighbors', 'INMEMORY NEIGHBOR GRAPH', ARRAY['neighbors', 'm'], 1, 2048),
           ('efconstruction', 'INMEMORY NEIGHBOR GRAPH', ARRAY['efconstruction'], 1, 65535),
           ('partitions', 'NEIGHBOR PARTITIONS', ARRAY['partitions', 'neighborpartitions'], 1, 10000000),
           ('samples_per_partition', 'NEIGHBOR PARTITIONS', ARRAY['samplesperpartition'], 1, 100000000),
           ('min_vectors_per_partition', 'NEIGHBOR PARTITIONS', ARRAY['minvectorsperpartition'], 0, 100000000),
           ('rescore_factor', NULL, ARRAY['rescorefactor'], 1, 100);
END;

-- The organization that parameters belong to, TYPE among them; NULL where they leave it open.
CREATE OR REPLACE FUNCTION pythia.implied_organization(parameters jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT CASE WHEN g.name <> 'type' THEN k.organization WHEN upper(g.value) = 'HNSW' THEN 'INMEMORY NEIGHBOR GRAPH'
                WHEN upper(g.value) = 'IVF' THEN 'NEIGHBOR PARTITIONS' END AS organization
    FROM (SELECT regexp_replace(lower(p.key), '[ _]', '', 'g') AS name, p.value
          FROM jsonb_each_text(CASE jsonb_typeof(parameters) WHEN 'object' THEN parameters ELSE '{}' END) AS p) AS g
    LEFT JOIN pythia.known_index_parameters() AS k ON g.name = ANY (k.spellings)
    ORDER BY 1 LIMIT 1;  -- NULLs come last
END;

CREATE OR REPLACE FUNCTION pythia.check_vector_index_type(type text, organization text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF upper(type) NOT IN ('HNSW', 'IVF') THEN
        RAISE EXCEPTION 'unknown type "%" of a vector index', type USING ERRCODE = '22023', HINT = 'Use HNSW or IVF.';
    END IF;
    IF organization <> (CASE upper(type) WHEN 'HNSW' THEN 'INMEMORY NEIGHBOR GRAPH' ELSE 'NEIGHBOR PARTITIONS' END) THEN
        RAISE EXCEPTION 'type % does not fit ORGANIZATION %', upper(type), organization
            USING ERRCODE = '22023', HINT = 'HNSW is an INMEMORY NEIGHBOR GRAPH, IVF has NEIGHBOR PARTITIONS.';
    END IF;
END $$;

-- Checks -------------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION pythia.check_indexed_table(relation regclass) RETURNS void
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    c      pg_class := (SELECT k FROM pg_class k WHERE k.oid = relation);
    head   CONSTANT text := format('cannot create a vector index on relation "%s"', c.relname);
    reason text;
    advice text;
BEGIN
    IF c.relnamespace IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace, 'information_schema'::regnamespace) THEN
        RAISE EXCEPTION 'permission denied: "%" is a system catalog', c.relname USING ERRCODE = '42501';
    END IF;
    IF c.relkind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION '%', head USING ERRCODE = '42809', DETAIL = format('This operation is not supported for %s.',
            CASE c.relkind WHEN 'v' THEN 'views' WHEN 'm' THEN 'materialized views' WHEN 'f' THEN 'foreign tables'
                           WHEN 'S' THEN 'sequences' WHEN 'i' THEN 'indexes' WHEN 'I' THEN 'indexes' ELSE 'composite types' END),
            HINT = 'A table of this database that stores the vectors can have one.';
    END IF;
    IF c.relpersistence = 't' THEN
        reason := 'The engine cannot read temporary tables.';
        advice := 'Searches in a temporary table are exact; put the rows into a permanent table for an index.';
    ELSIF c.relpersistence = 'u' THEN
        reason := 'An unlogged table loses its rows in a crash, and its index would not know.';
        advice := format('ALTER TABLE %s SET LOGGED;', relation);
    ELSIF c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = relation) THEN
        reason := 'It has inheritance children, whose rows belong to it without being in it.';
        advice := 'A partitioned table can have an index over all its partitions, and each of the children one of its own.';
    ELSIF EXISTS (SELECT FROM pg_partition_tree(relation) p JOIN pg_class k ON k.oid = p.relid WHERE k.relkind = 'f') THEN
        reason := 'It has partitions that are foreign tables, whose rows change without notice.';
        advice := 'Detach them, or create an index on each of the other partitions.';
    END IF;
    IF reason IS NOT NULL THEN
        RAISE EXCEPTION '%', head USING ERRCODE = '0A000', DETAIL = reason, HINT = advice;
    END IF;
END $$;

-- The table's primary key, if it is one column: its name and the family of its type (NULL for others).
CREATE OR REPLACE FUNCTION pythia.table_key(relation regclass, OUT columns integer, OUT name name, OUT type text, OUT family text)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT x.indnkeyatts, a.attname, format_type(a.atttypid, a.atttypmod),
           CASE coalesce(nullif(t.typbasetype, 0), t.oid)
               WHEN 'int2'::regtype THEN 'int' WHEN 'int4'::regtype THEN 'int' WHEN 'int8'::regtype THEN 'int'
               WHEN 'uuid'::regtype THEN 'uuid' WHEN 'text'::regtype THEN 'text' WHEN 'varchar'::regtype THEN 'text'
               WHEN 'numeric'::regtype THEN 'numeric' END
    FROM pg_index x
    JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
    JOIN pg_type t ON t.oid = a.atttypid
    WHERE x.indrelid = relation AND x.indisprimary;
END;

CREATE OR REPLACE FUNCTION pythia.check_table_key(relation regclass) RETURNS void
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    key     record;
    present text := (SELECT c.relname FROM pg_class c WHERE c.oid = relation);
    column_ CONSTANT text := CASE WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = 'id' AND NOT a.attisdropped)
                             THEN 'row_id' ELSE 'id' END;
    rule    CONSTANT text := 'A vector index finds rows by a primary key of one column of type bigint, integer, smallint, numeric, uuid, text or varchar.';
    added   CONSTANT text := format('ADD COLUMN %s bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;', column_);
    dropped text := (SELECT format('DROP CONSTRAINT %I, ADD %s, ', k.conname, replace(pg_get_constraintdef(k.oid), 'PRIMARY KEY', 'UNIQUE'))
                     FROM pg_constraint k WHERE k.conrelid = relation AND k.contype = 'p');
BEGIN
    SELECT * INTO key FROM pythia.table_key(relation);
    IF key.columns IS NULL THEN
        RAISE EXCEPTION 'table "%" has no primary key', present
            USING ERRCODE = '55000', DETAIL = rule, HINT = format('ALTER TABLE %s %s', relation, added);
    ELSIF key.columns > 1 THEN
        RAISE EXCEPTION 'primary key of table "%" has % columns', present, key.columns
            USING ERRCODE = '0A000', DETAIL = rule, HINT = format('ALTER TABLE %s %s%s', relation, dropped, added);
    ELSIF key.family IS NULL THEN
        RAISE EXCEPTION 'primary key of table "%" has type %', present, key.type
            USING ERRCODE = '0A000', DETAIL = rule, HINT = format('ALTER TABLE %s %s%s', relation, dropped, added);
    END IF;
END $$;

-- A table's column that exists; raises otherwise.
CREATE OR REPLACE FUNCTION pythia.table_column(relation regclass, column_name name) RETURNS pg_attribute
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    found pg_attribute := (SELECT a FROM pg_attribute a
                           WHERE a.attrelid = relation AND a.attname = column_name AND a.attnum > 0 AND NOT a.attisdropped);
BEGIN
    IF found.attnum IS NULL THEN
        RAISE EXCEPTION 'column "%" of relation "%" does not exist', column_name, (SELECT c.relname FROM pg_class c WHERE c.oid = relation)
            USING ERRCODE = '42703', HINT = format('The columns are %s.', (
                SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a
                WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped));
    END IF;
    IF found.attgenerated = 'v' THEN
        RAISE EXCEPTION 'column "%" is a virtual generated column', column_name
            USING ERRCODE = '0A000', DETAIL = 'A vector index reads stored columns only.', HINT = 'Generate it as STORED.';
    END IF;
    RETURN found;
END $$;

-- The vector type of a column, NULL for other types, and its declared dimensions.
CREATE OR REPLACE FUNCTION pythia.vector_column_type(a pg_attribute, OUT type text, OUT dimensions integer)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT CASE WHEN b.oid IN ('bit'::regtype, 'varbit'::regtype) THEN 'bit'
                WHEN b.oid IN ('@extschema:vector@.vector'::regtype, '@extschema:vector@.halfvec'::regtype,
                               '@extschema:vector@.sparsevec'::regtype) THEN b.typname::text END,
           CASE WHEN b.oid <> 'varbit'::regtype AND m.typmod > 0 THEN m.typmod END
    FROM pg_type t JOIN pg_type b ON b.oid = coalesce(nullif(t.typbasetype, 0), t.oid),
    LATERAL (SELECT CASE WHEN t.typbasetype = 0 THEN a.atttypmod ELSE t.typtypmod END AS typmod) AS m
    WHERE t.oid = a.atttypid;
END;

CREATE OR REPLACE FUNCTION pythia.check_include_columns(i pythia.vector_index) RETURNS void
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    stored CONSTANT regtype[] := '{int2,int4,int8,float4,float8,numeric,bool,date,timestamp,timestamptz,text,varchar,uuid}';
    wanted name;
    a      pg_attribute;
BEGIN
    IF cardinality(i.include_columns) > 31 THEN
        RAISE EXCEPTION 'cannot include more than 31 columns in a vector index'
            USING ERRCODE = '54011', HINT = 'Filters on other columns work without being included.';
    END IF;
    FOREACH wanted IN ARRAY i.include_columns LOOP
        a := pythia.table_column(i.relation, wanted);
        IF wanted IN (i.column_name, i.key_column) THEN
            RAISE EXCEPTION 'column "%" is in the vector index already', wanted
                USING ERRCODE = '42701', DETAIL = 'The vector and the primary key need not be included.', HINT = 'Leave it out.';
        ELSIF cardinality(array_positions(i.include_columns, wanted)) > 1 THEN
            RAISE EXCEPTION 'column "%" is included more than once', wanted USING ERRCODE = '42701', HINT = 'Name it once.';
        ELSIF EXISTS (SELECT FROM pg_collation c WHERE c.oid = a.attcollation AND NOT c.collisdeterministic) THEN
            RAISE EXCEPTION 'column "%" cannot be included in a vector index', wanted
                USING ERRCODE = '0A000', DETAIL = 'Its collation calls texts equal that differ.',
                      HINT = 'Filters on other columns work without being included.';
        ELSIF a.atttypid <> ALL (stored) THEN
            RAISE EXCEPTION 'column "%" of type % cannot be included in a vector index', wanted, format_type(a.atttypid, a.atttypmod)
                USING ERRCODE = '0A000', DETAIL = 'Numbers, booleans, dates, timestamps, texts and uuids can be.',
                      HINT = 'Filters on other columns work without being included.';
        END IF;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION pythia.check_vector_index_name(i pythia.vector_index) RETURNS void
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    other pythia.vector_index := (SELECT v FROM pythia.vector_index v
                                  WHERE v.relation = i.relation AND v.column_name = i.column_name AND v.id <> i.id);
BEGIN
    IF EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = i.namespace AND c.relname = i.name)
       OR EXISTS (SELECT FROM pythia.vector_index v WHERE v.namespace = i.namespace AND v.name = i.name AND v.id <> i.id) THEN
        RAISE EXCEPTION 'relation "%" already exists', i.name
            USING ERRCODE = '42P07', HINT = 'Indexes and tables of a schema share their names: choose another one.';
    END IF;
    IF other.id IS NOT NULL THEN
        RAISE EXCEPTION 'column "%" has a vector index already', i.column_name
            USING ERRCODE = '42710', DETAIL = format('Its name is "%s".', other.name),
                  HINT = format('To change it: CALL pythia.rebuild_vector_index(%1$L, …); to drop it: CALL pythia.drop_vector_index(%1$L);',
                                format('%s.%I', other.namespace, other.name));
    END IF;
END $$;

CREATE OR REPLACE FUNCTION pythia.refuse_accuracy(given text) RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    RAISE EXCEPTION 'target accuracy must be between 1 and 100, not %', given
        USING ERRCODE = '22023', HINT = 'It is the percentage of true neighbors to be found; with 100, searches are exact.';
END $$;

CREATE OR REPLACE FUNCTION pythia.check_vector_index_numbers(i pythia.vector_index) RETURNS void
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    IF i.target_accuracy NOT BETWEEN 1 AND 100 THEN
        PERFORM pythia.refuse_accuracy(i.target_accuracy::text);
    END IF;
    IF i.parallel NOT BETWEEN 1 AND 1024 THEN
        RAISE EXCEPTION 'parallel must be between 1 and 1024, not %', i.parallel
            USING ERRCODE = '22023', HINT = 'With 1 the engine takes its own number of threads.';
    END IF;
END $$;
