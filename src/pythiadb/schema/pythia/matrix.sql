-- Scoring of tables of numbers: rows travel as arrays of numbers, column after column, read by ranges of a table's pages.
--
-- These functions are safe in parallel workers although dblink's are not marked so: a worker opens a connection of its own.

-- Numbers as vectors in binary form, which are written several times as fast as an array; NULL for numbers that vectors refuse:
-- NULL, NaN, infinity. An integer of more than 24 bits is rounded, and so is a number in double precision.
CREATE OR REPLACE FUNCTION pythia.vectors_send("values" anyarray) RETURNS bytea
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $$
DECLARE
    dimensions CONSTANT integer := 16000;  -- the most that a vector has
    packed bytea := '';
BEGIN
    FOR start IN 1..cardinality("values") BY dimensions LOOP
        packed := packed || @extschema:vector@.vector_send("values"[start:start + dimensions - 1]::@extschema:vector@.vector);
    END LOOP;
    RETURN packed;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END $$;

-- One engine call for many records: "values" holds the attributes one after the other, each with one number a record. The
-- answers come in the type of the last argument.
--
-- Integers, and what the model takes in single precision, travel as vectors. If an integer is too large for that, the engine
-- answers "again"; such numbers travel as an array in double precision. Single-precision predictions come back as the text of a
-- vector, which is read in half the time of an array's.
--
-- constants: attributes that are the same for all records, as an object like a record of scoring_batch. They travel beside
-- the numbers, once, and are read as those of a record are, texts too.
CREATE OR REPLACE FUNCTION pythia.scoring_columns(
    model regclass, operator text, arguments jsonb, attributes text[], "values" anyarray, total bigint, result anycompatible,
    constants jsonb)
RETURNS anycompatiblearray
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER COST 1000000 SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target record := pythia.scoring_package(model, lower(operator));
    width  integer := cardinality(attributes);
    size   integer := cardinality("values");
    form   text := rtrim(pg_typeof("values")::text, '[]');
    packed bytea;
    answer text;
BEGIN
    IF coalesce(size, 0) = 0 THEN
        RETURN '{}';
    END IF;
    IF coalesce(width, 0) = 0 OR size % width <> 0 THEN
        RAISE EXCEPTION '% values do not make rows of % attributes', size, coalesce(width, 0) USING ERRCODE = '2202E';
    END IF;
    IF form = 'double precision' AND pythia.is_single_precision(model) THEN
        form := 'real';
    END IF;
    IF form IN ('integer', 'real') THEN
        packed := pythia.vectors_send("values");
    END IF;
    LOOP
        IF packed IS NULL THEN
            form := 'double precision';
            packed := array_send("values"::double precision[]);
        END IF;
        answer := (pythia.engine_call('matrix', json_build_array(
            target.package, target.inmemory, coalesce(total, size / width), lower(operator), coalesce(arguments, '[]'),
            attributes, size / width, pg_typeof(result) = 'double precision'::regtype, form,
            coalesce(constants, '{}'))::text, encode(packed, 'hex')))[1];
        EXIT WHEN answer IS DISTINCT FROM 'again';
        packed := NULL;
    END LOOP;
    IF answer ^@ '[' THEN
        RETURN answer::@extschema:vector@.vector::real[];
    END IF;
    RETURN answer;
END $$;
COMMENT ON FUNCTION pythia.scoring_columns(regclass, text, jsonb, text[], anyarray, bigint, anycompatible, jsonb) IS
    'The answers of an operator for a table of numbers, beside attributes that are the same for all rows, by one engine call.';

-- A function of its own rather than a default: views hold calls with these arguments.
CREATE OR REPLACE FUNCTION pythia.scoring_columns(
    model regclass, operator text, arguments jsonb, attributes text[], "values" anyarray, total bigint DEFAULT NULL,
    result anycompatible DEFAULT NULL::text)
RETURNS anycompatiblearray
LANGUAGE sql STABLE PARALLEL SAFE COST 1000000
AS $$ SELECT pythia.scoring_columns($1, $2, $3, $4, $5, $6, $7, NULL::jsonb) $$;
COMMENT ON FUNCTION pythia.scoring_columns(regclass, text, jsonb, text[], anyarray, bigint, anycompatible) IS
    'The answers of an operator for a table of numbers by one engine call.';

-- Whether the graph of a model takes nothing but numbers in single precision.
CREATE OR REPLACE FUNCTION pythia.is_single_precision(model regclass) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $$
BEGIN
    RETURN coalesce(bool_and(tensor ~ ':float32\[[^\[]*$'), false)
    FROM pythia.model m, jsonb_array_elements_text(m.facts -> 'inputs') AS tensor
    WHERE m.relation = is_single_precision.model;
END $$;

-- Ranges of ctid that cover one of `parts` parts of a table, each with about "rows" rows; total is about how many rows the
-- table has. Such a table is one file without row-level security that every session sees.
CREATE OR REPLACE FUNCTION pythia.table_ranges(
    relation regclass, "rows" integer DEFAULT 8192, part integer DEFAULT 0, parts integer DEFAULT 1)
RETURNS TABLE (first tid, past tid, total bigint)
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 16 SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fewest CONSTANT bigint := 28;    -- full pages of the shortest rows hold 8192
    most   CONSTANT bigint := 2048;  -- pages; 16 MiB
    facts  pg_class;
    step   bigint := 64;  -- for a table that was never analyzed
    page   bigint;
    pages  bigint;
BEGIN
    SELECT c.* INTO facts FROM pg_class c WHERE c.oid = relation;
    IF facts.relkind NOT IN ('r', 'm') OR facts.relpersistence = 't' OR facts.relrowsecurity
       OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = relation) THEN
        RAISE EXCEPTION 'table % cannot be read by ranges of its pages', relation
            USING ERRCODE = '42809', DETAIL = 'It is temporary, has partitions, children or row-level security, or is no table.';
    END IF;
    IF facts.reltuples > 0 THEN
        step := least(greatest("rows" * facts.relpages::float8 / facts.reltuples, fewest), most);
    END IF;
    total := greatest(facts.reltuples, 1);
    pages := pg_relation_size(relation) / current_setting('block_size')::bigint;
    page := pages * part / parts;
    WHILE page < pages * (part + 1) / parts LOOP
        first := format('(%s,0)', page);
        page := least(page + step, pages * (part + 1) / parts);
        past := format('(%s,0)', page);
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION pythia.table_ranges(regclass, integer, integer, integer) IS
    'Ranges of ctid that cover a table, or one of some parts of it.';

-- Run a query that aggregates a range of a table into one row, given $1 and $2 for the range. That a plan can call it with
-- another range each time is what a parallel worker may do; with a subquery in its place it may not.
CREATE OR REPLACE FUNCTION pythia.range_arrays(query text, first tid, past tid) RETURNS record
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100000
AS $$
DECLARE
    arrays record;
BEGIN
    EXECUTE query INTO arrays USING first, past;
    RETURN arrays;
END $$;
COMMENT ON FUNCTION pythia.range_arrays(text, tid, tid) IS 'The one row of a query that aggregates the rows of a range of ctid.';
