-- Indexes over columns that leave dimensions open, as type `vector` does without a number: an index has those of its rows, and
-- rows of others are refused, as no distance to them exists: every search that meets one would fail. Who writes is checked by the
-- journal's functions; those of a column with dimensions of its own are without it.
--
-- An index learns them from a row that is there when it is defined, while its table is locked, and at each build. Until then, and
-- after TRUNCATE, a row at the beginning of the table tells. Transactions that fill an empty table at the same time do not see
-- each other's rows; what they have left is found by the build, which fails.

-- Whether a column's type says how many dimensions its vectors have.
CREATE OR REPLACE FUNCTION pythia.has_fixed_dimensions(i pythia.vector_index) RETURNS boolean
LANGUAGE sql STABLE
RETURN (SELECT (pythia.vector_column_type(a)).dimensions IS NOT NULL FROM pg_attribute a
        WHERE a.attrelid = i.relation AND a.attname = i.column_name);

-- The dimensions of an index's vectors in a row: SQL text. `source` names the row.
CREATE OR REPLACE FUNCTION pythia.dimensions_expression(i pythia.vector_index, source text) RETURNS text
LANGUAGE sql STABLE
RETURN format(CASE i.vector_type WHEN 'bit' THEN 'length(%s.%I)' WHEN 'sparsevec' THEN 'pythia.vector_dims(%s.%I)'
                                 ELSE '@extschema:vector@.vector_dims(%s.%I)' END, source, i.column_name);

-- The dimensions of some row that is there; NULL without any.
CREATE OR REPLACE FUNCTION pythia.dimensions_of_a_row(i pythia.vector_index) RETURNS integer
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    present integer;
BEGIN
    EXECUTE format('SELECT %s FROM %s t WHERE t.%I IS NOT NULL LIMIT 1', pythia.dimensions_expression(i, 't'), i.relation, i.column_name)
    INTO present;
    RETURN present;
END $$;

-- The query for what an index has learned: SQL text.
CREATE OR REPLACE FUNCTION pythia.learned_dimensions(i pythia.vector_index) RETURNS text
LANGUAGE sql STABLE
RETURN format('SELECT v.dimensions FROM pythia.vector_index v WHERE v.id = %s', i.id);

-- What goes into a journal's function so that it refuses rows: for statements with a table "changed", and for single rows. They
-- compare with what the index has learned; the rest is done where that differs. A row that has had its dimensions may keep them.
-- Queries are without parameters, which would make PostgreSQL plan them again and again.
CREATE OR REPLACE FUNCTION pythia.dimensions_check(i pythia.vector_index, many boolean) RETURNS text
LANGUAGE sql STABLE
RETURN CASE WHEN pythia.has_fixed_dimensions(i) THEN ''
    WHEN many THEN format(
        'IF TG_OP = ''INSERT'' THEN '
        'IF EXISTS (SELECT FROM changed AS c WHERE c.%1$I IS NOT NULL AND %2$s IS DISTINCT FROM (%3$s)) THEN '
        'PERFORM pythia.refuse_dimensions(%4$s, vecsys.dimensions_%4$s(), %2$s, c.%5$I::text) '
        'FROM changed AS c WHERE %2$s <> (SELECT vecsys.dimensions_%4$s()); END IF; END IF; ',
        i.column_name, pythia.dimensions_expression(i, 'c'), pythia.learned_dimensions(i), i.id, i.key_column)
    ELSE format(
        'IF TG_OP <> ''DELETE'' AND %1$s IS DISTINCT FROM %2$s THEN '
        'DECLARE learned integer := (%3$s); BEGIN IF %1$s IS DISTINCT FROM learned AND %1$s <> vecsys.dimensions_%4$s() THEN '
        'PERFORM pythia.refuse_dimensions(%4$s, vecsys.dimensions_%4$s(), %1$s, NEW.%5$I::text); END IF; END; END IF; ',
        pythia.dimensions_expression(i, 'NEW'), pythia.dimensions_expression(i, 'OLD'), pythia.learned_dimensions(i), i.id, i.key_column)
    END;

-- Make vecsys.dimensions_<id>: the dimensions that new rows must have, NULL where there may be any. What was learned counts for the
-- rows that it was learned from. An index that could not be built and answers nothing refuses nothing.
CREATE OR REPLACE FUNCTION pythia.define_dimensions(i pythia.vector_index) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    IF pythia.has_fixed_dimensions(i) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE OR REPLACE FUNCTION vecsys.dimensions_%s() RETURNS integer LANGUAGE plpgsql VOLATILE AS %L', i.id, format(
        'BEGIN RETURN ('
        'SELECT CASE WHEN o.fingerprint = pythia.vector_fingerprint(v.id) OR o.version IS NULL AND v.status = ''BUILDING'' '
        'THEN coalesce(v.dimensions, first.dimensions) WHEN o.version IS NOT NULL THEN first.dimensions END '
        'FROM pythia.vector_index v '
        'LEFT JOIN LATERAL (SELECT * FROM pythia.vector_index_version o WHERE o.index_id = v.id ORDER BY o.version DESC LIMIT 1) o ON true '
        'LEFT JOIN LATERAL (SELECT %2$s AS dimensions FROM %3$s t WHERE t.ctid < ''(1,0)'' AND t.%4$I IS NOT NULL LIMIT 1) first ON true '
        'WHERE v.id = %1$s); END',
        i.id, pythia.dimensions_expression(i, 't'), i.relation, i.column_name));
    EXECUTE format('REVOKE ALL ON FUNCTION vecsys.dimensions_%s() FROM PUBLIC', i.id);
END $$;

CREATE OR REPLACE FUNCTION pythia.refuse_dimensions(index_id integer, expected integer, given integer, key text) RETURNS void
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    i pythia.vector_index := (SELECT v FROM pythia.vector_index v WHERE v.id = index_id);
BEGIN
    RAISE EXCEPTION 'expected % dimensions, not %', expected, given
        USING ERRCODE = '22000', SCHEMA = i.namespace::text, TABLE = (SELECT c.relname FROM pg_class c WHERE c.oid = i.relation), COLUMN = i.column_name,
              DETAIL = format('The row with %s = %s has %s dimensions in column "%s", whose vector index "%s" has %s.',
                              i.key_column, key, given, i.column_name, i.name, expected),
              HINT = format('For vectors of other dimensions, drop the index first: CALL pythia.drop_vector_index(%L);',
                            format('%s.%I', i.namespace, i.name));
END $$;
