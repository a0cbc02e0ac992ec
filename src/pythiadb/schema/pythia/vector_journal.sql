-- The journal of a vector index: triggers on its table write the keys of changed rows, never vectors, into
-- vecsys.journal_<id>, in the user's own transaction. All names of an index's objects end in its id.
--
-- Where rows arrive through the table's own name only, statement triggers with transition tables take INSERT and DELETE: one
-- call a statement, however many rows. Partitions and inheritance children also get rows by way of their parents, which fires
-- row triggers only; so does logical replication, for which row triggers stand beside them. UPDATE has a row trigger that
-- concerns those statements only that name a column of the index: others cost next to nothing. Where a trigger of the user's
-- may change a row on its way, every UPDATE concerns it. Its condition, evaluated without a call, tells rows that did not change.
--
-- What is made here needs no ownership of the table: it is made for definitions, and only a table's owner can write one.

-- The parts ----------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION pythia.key_sql_type(key_type text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE key_type WHEN 'int' THEN 'bigint' ELSE key_type END;
COMMENT ON FUNCTION pythia.key_sql_type(text) IS 'The SQL type of an index''s keys, as its journal has them.';

-- Whether rows get into a table, or out of it, without firing its statement triggers.
CREATE OR REPLACE FUNCTION pythia.needs_row_triggers(relation regclass) RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (SELECT FROM pg_class c WHERE c.oid = relation AND c.relkind = 'p')
    OR EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = relation);

-- A table, or the leaves of a partitioned one.
CREATE OR REPLACE FUNCTION pythia.tables_with_rows(relation regclass) RETURNS SETOF oid
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT c.oid FROM pg_class c WHERE c.oid = relation AND c.relkind <> 'p'
    UNION
    SELECT p.relid FROM pg_partition_tree(relation) AS p JOIN pg_class c ON c.oid = p.relid WHERE c.relkind <> 'p';
END;

-- Whether a trigger may change rows between what an UPDATE says and what is stored: one for each row, before it. Generated
-- columns need no such care: PostgreSQL counts them among the columns of an UPDATE that names their sources.
CREATE OR REPLACE FUNCTION pythia.may_rows_change_on_their_way(relation regclass) RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (SELECT FROM pythia.tables_with_rows(relation) AS p(relid) JOIN pg_trigger t ON t.tgrelid = p.relid
               WHERE t.tgtype & 19 = 19);  -- TRIGGER_TYPE_ROW | TRIGGER_TYPE_BEFORE | TRIGGER_TYPE_UPDATE

-- Whether a vector is so short that it normally lies in its row.
CREATE OR REPLACE FUNCTION pythia.stays_in_its_row(i pythia.vector_index) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN coalesce(i.dimensions * CASE i.vector_type WHEN 'vector' THEN 32 WHEN 'halfvec' THEN 16 WHEN 'bit' THEN 1 END < 8 * 1600, false);

-- The condition under which an UPDATE concerns the index. Operators are named with their schemas, as users have others; keys
-- are compared as they are written, so that 1 and 1.0 are two. A long vector lies outside its row (TOAST), and when it was not
-- touched it keeps its place, so that its bytes need not be read. Every node of the condition costs each UPDATE a microsecond.
CREATE OR REPLACE FUNCTION pythia.vector_change(i pythia.vector_index) RETURNS text
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT concat_ws(' OR ',
        CASE WHEN pythia.stays_in_its_row(i) THEN p.vector
             ELSE format('CASE WHEN pg_catalog.pg_column_toast_chunk_id(OLD.%1$I) OPERATOR(pg_catalog.=) '
                         'pg_catalog.pg_column_toast_chunk_id(NEW.%1$I) THEN false ELSE %2$s END', i.column_name, p.vector) END,
        CASE WHEN i.key_type IN ('int', 'uuid') THEN format('OLD.%1$I OPERATOR(pg_catalog.<>) NEW.%1$I', i.key_column)
             ELSE format('pg_catalog.record_image_ne(ROW(OLD.%1$I), ROW(NEW.%1$I))', i.key_column) END,
        CASE WHEN p.olds IS NOT NULL THEN format('pg_catalog.record_image_ne(ROW(%s), ROW(%s))', p.olds, p.news) END)
    FROM (SELECT format('OLD.%1$I OPERATOR(%2$s.<>) NEW.%1$I OR (OLD.%1$I IS NULL) OPERATOR(pg_catalog.<>) (NEW.%1$I IS NULL)',
                        i.column_name, CASE WHEN i.vector_type = 'bit' THEN 'pg_catalog' ELSE '@extschema:vector@' END) AS vector,
                 (SELECT string_agg(format('OLD.%I', c), ', ' ORDER BY n) FROM unnest(i.include_columns) WITH ORDINALITY AS u(c, n)) AS olds,
                 (SELECT string_agg(format('NEW.%I', c), ', ' ORDER BY n) FROM unnest(i.include_columns) WITH ORDINALITY AS u(c, n)) AS news) AS p;
END;

-- The triggers of an index: name without prefix, when it fires ("char" of pg_trigger.tgenabled), definition.
-- The last one never fires. PostgreSQL keeps its list of columns through renames, dumps and restores: it is how the index
-- knows its key, its vector and its INCLUDE columns, in this order.
CREATE OR REPLACE FUNCTION pythia.vector_triggers(i pythia.vector_index)
RETURNS TABLE (suffix text, enabled "char", definition text)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT t.suffix, t.enabled, format('CREATE OR REPLACE TRIGGER %I %s', format('vector_index_%s_%s', i.id, t.suffix), t.definition)
    FROM (SELECT format('ON %s', i.relation) AS target,
                 format('EXECUTE FUNCTION vecsys.journal_%s_row()', i.id) AS row_call,
                 format('EXECUTE FUNCTION vecsys.journal_%s_many()', i.id) AS many_call,
                 'UPDATE OF ' || (SELECT string_agg(quote_ident(c), ', ' ORDER BY n)
                                  FROM unnest(ARRAY[i.key_column, i.column_name] || i.include_columns) WITH ORDINALITY AS u(c, n)) AS update_of,
                 pythia.needs_row_triggers(i.relation) AS rows_only) AS p,
    LATERAL (VALUES
        (p.rows_only, 'insert', 'A'::"char",
         format('AFTER INSERT %s FOR EACH ROW WHEN (NEW.%I IS NOT NULL) %s', p.target, i.column_name, p.row_call)),
        (p.rows_only, 'delete', 'A',
         format('AFTER DELETE %s FOR EACH ROW WHEN (OLD.%I IS NOT NULL) %s', p.target, i.column_name, p.row_call)),
        (NOT p.rows_only, 'insert', 'O',
         format('AFTER INSERT %s REFERENCING NEW TABLE AS changed FOR EACH STATEMENT %s', p.target, p.many_call)),
        (NOT p.rows_only, 'delete', 'O',
         format('AFTER DELETE %s REFERENCING OLD TABLE AS changed FOR EACH STATEMENT %s', p.target, p.many_call)),
        (NOT p.rows_only, 'replica_insert', 'R',
         format('AFTER INSERT %s FOR EACH ROW WHEN (NEW.%I IS NOT NULL) %s', p.target, i.column_name, p.row_call)),
        (NOT p.rows_only, 'replica_delete', 'R',
         format('AFTER DELETE %s FOR EACH ROW WHEN (OLD.%I IS NOT NULL) %s', p.target, i.column_name, p.row_call)),
        (true, 'update', 'A',
         format('AFTER %s %s FOR EACH ROW WHEN (%s) %s', CASE WHEN pythia.may_rows_change_on_their_way(i.relation) THEN 'UPDATE' ELSE p.update_of END,
                p.target, pythia.vector_change(i), p.row_call)),
        (true, 'columns', 'D',
         format('BEFORE %s %s FOR EACH STATEMENT EXECUTE FUNCTION vecsys.do_nothing()', p.update_of, p.target))
    ) AS t(wanted, suffix, enabled, definition)
    WHERE t.wanted;
END;

-- Harmless, should anybody enable the trigger that calls it.
CREATE OR REPLACE FUNCTION vecsys.do_nothing() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN NULL;
END $$;

-- Making and removing ------------------------------------------------------------------------------------------------------

-- Make the journal of an index, or bring it up to date: after a rename, an upgrade, a change of the table's place.
CREATE OR REPLACE FUNCTION pythia.define_vector_journal(index_id integer) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i pythia.vector_index := (SELECT v FROM pythia.vector_index v WHERE v.id = index_id);
BEGIN
    IF to_regclass(format('vecsys.journal_%s', i.id)) IS NULL THEN
        -- Removed keys are in a reader's way until they are vacuumed.
        EXECUTE format(
            'CREATE TABLE vecsys.journal_%s (key %s, xid xid8 NOT NULL DEFAULT pg_current_xact_id()) '
            'WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000)', i.id, pythia.key_sql_type(i.key_type));
    END IF;
    PERFORM pythia.define_journal_functions(i);
    PERFORM pythia.define_journal_triggers(i);
END $$;

CREATE OR REPLACE FUNCTION pythia.define_journal_functions(i pythia.vector_index) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    head CONSTANT text := 'CREATE OR REPLACE FUNCTION vecsys.journal_%s_%s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER '
                          'SET search_path = pg_catalog, pg_temp AS %L';
    type CONSTANT text := pythia.key_sql_type(i.key_type);
BEGIN
    PERFORM pythia.define_dimensions(i);
    EXECUTE format(head, i.id, 'many', format(
        'BEGIN INSERT INTO vecsys.journal_%1$s (key) SELECT c.%2$I::%3$s FROM changed AS c WHERE c.%4$I IS NOT NULL; %5$sRETURN NULL; END',
        i.id, i.key_column, type, i.column_name, pythia.dimensions_check(i, many => true)));
    EXECUTE format(head, i.id, 'row', format(
        'BEGIN '
        'IF TG_OP <> ''DELETE'' THEN INSERT INTO vecsys.journal_%1$s (key) VALUES (NEW.%2$I::%3$s); END IF; '
        'IF TG_OP = ''DELETE'' OR TG_OP = ''UPDATE'' AND NOT record_image_eq(ROW(OLD.%2$I), ROW(NEW.%2$I)) THEN '
        'INSERT INTO vecsys.journal_%1$s (key) VALUES (OLD.%2$I::%3$s); END IF; '
        '%4$sRETURN NULL; END',
        i.id, i.key_column, type, pythia.dimensions_check(i, many => false)));
    EXECUTE format('REVOKE ALL ON FUNCTION vecsys.journal_%1$s_many(), vecsys.journal_%1$s_row() FROM PUBLIC', i.id);
END $$;

-- Triggers that are there and are right stay: to make them anew would change the table's fingerprint. That of UPDATE is
-- exchanged alone when triggers of the user's come and go: the table is locked, no change is missed, versions stay good.
CREATE OR REPLACE FUNCTION pythia.define_journal_triggers(i pythia.vector_index) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    prefix CONSTANT text := format('vector_index_%s_', i.id);
    wrong  text[] := pythia.wrong_journal_triggers(i);
    before record;
BEGIN
    PERFORM pythia.loosen_trigger_columns(i.relation, prefix);  -- a restored database has lost that
    before := pythia.journal_triggers_state(i);
    IF cardinality(wrong) = 0 AND before.fits THEN
        RETURN;
    END IF;
    PERFORM set_config('pythia.defining', 'on', true);  -- see pythia.follow_altered_tables
    IF wrong = '{update}' AND before.fits AND before.state = i.journal_state THEN
        PERFORM pythia.make_journal_triggers(i, wrong);
        UPDATE pythia.vector_index_version v SET fingerprint = replace(v.fingerprint, before.state, (pythia.journal_triggers_state(i)).state)
        WHERE v.index_id = i.id;
    ELSE
        PERFORM pythia.drop_journal_triggers(i.id, i.relation);
        PERFORM pythia.make_journal_triggers(i, ARRAY(SELECT t.suffix FROM pythia.vector_triggers(i) AS t));
    END IF;
    PERFORM pythia.loosen_trigger_columns(i.relation, prefix);
    PERFORM set_config('pythia.defining', '', true);
END $$;

-- Make some of an index's triggers, in the place of those that are there.
CREATE OR REPLACE FUNCTION pythia.make_journal_triggers(i pythia.vector_index, suffixes text[]) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN SELECT format('vector_index_%s_%s', i.id, t.suffix) AS name, t.enabled, t.definition
                  FROM pythia.vector_triggers(i) AS t WHERE t.suffix = ANY (suffixes) LOOP
        EXECUTE wanted.definition;  -- readers go on: to drop a trigger would wait for them
        EXECUTE format('ALTER TABLE %s %s TRIGGER %I', i.relation,
                       CASE wanted.enabled WHEN 'A' THEN 'ENABLE ALWAYS' WHEN 'R' THEN 'ENABLE REPLICA' WHEN 'D' THEN 'DISABLE' ELSE 'ENABLE' END,
                       wanted.name);
    END LOOP;
END $$;

-- Those triggers of an index that are missing, that should not be there, or that fire when they should not: the ends of their names.
CREATE OR REPLACE FUNCTION pythia.wrong_journal_triggers(i pythia.vector_index) RETURNS text[]
LANGUAGE sql STABLE
RETURN ARRAY(
    SELECT DISTINCT coalesce(wanted.suffix, found.suffix)
    FROM (SELECT v.suffix, v.enabled, v.definition ~ ' FOR EACH ROW ' AS by_row, v.definition ~ ' UPDATE OF ' AS of_columns
          FROM pythia.vector_triggers(i) AS v) AS wanted
    FULL JOIN (SELECT substr(t.tgname, length(format('vector_index_%s_', i.id)) + 1) AS suffix, t.tgenabled AS enabled,
                      t.tgtype & 1 = 1 AS by_row, cardinality(t.tgattr::int2[]) > 0 AS of_columns
               FROM pg_trigger t
               WHERE t.tgrelid = i.relation AND t.tgname ^@ format('vector_index_%s_', i.id)) AS found USING (suffix, enabled, by_row, of_columns)
    WHERE wanted.suffix IS NULL OR found.suffix IS NULL);

CREATE OR REPLACE FUNCTION pythia.drop_journal_triggers(index_id integer, relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    found name;
BEGIN
    FOR found IN
        SELECT t.tgname FROM pg_trigger t
        WHERE t.tgrelid = relation AND t.tgparentid = 0 AND t.tgname ^@ format('vector_index_%s_', index_id)
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', found, relation);
    END LOOP;
END $$;

-- Let a column's DROP drop the triggers that read it, as it would an index; by itself PostgreSQL refuses unless it is told
-- CASCADE. There is no statement for it, only the catalog.
CREATE OR REPLACE FUNCTION pythia.loosen_trigger_columns(relation regclass, prefix text) RETURNS void
LANGUAGE sql VOLATILE
BEGIN ATOMIC
    UPDATE pg_depend d SET deptype = 'a'
    FROM pg_trigger t
    WHERE t.tgrelid = relation AND t.tgname ^@ prefix AND d.classid = 'pg_trigger'::regclass AND d.objid = t.oid
      AND d.refclassid = 'pg_class'::regclass AND d.refobjid = relation AND d.refobjsubid > 0 AND d.deptype = 'n';
END;

-- Remove what an index has made: triggers, journal, functions. The table itself may be gone.
CREATE OR REPLACE FUNCTION pythia.remove_vector_journal(index_id integer, relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    journal CONSTANT regclass := to_regclass(format('vecsys.journal_%s', index_id));
    made    regprocedure;
BEGIN
    PERFORM pythia.drop_journal_triggers(index_id, relation);
    FOR made IN
        SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = 'vecsys'::regnamespace AND p.proname ~ format('_%s(_|$)', index_id)
    LOOP
        EXECUTE format('DROP FUNCTION %s', made);
    END LOOP;
    IF journal IS NOT NULL THEN
        EXECUTE format('DROP TABLE %s', journal);
    END IF;
END $$;

-- The state of a table ------------------------------------------------------------------------------------------------------

-- The triggers of an index on the tables that have rows, as a text: what they are in, whether they fire as they should, and the
-- versions of their catalog rows, which change when somebody switches them off and on.
CREATE OR REPLACE FUNCTION pythia.journal_triggers_state(i pythia.vector_index, OUT fits boolean, OUT state text)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT coalesce(bool_and(t.enabled = CASE WHEN pythia.needs_row_triggers(i.relation) THEN 'AAA' ELSE 'OORRA' END), true),
           md5(string_agg(concat_ws(' ', t.relid, t.enabled, t.versions), ',' ORDER BY t.relid))
    FROM (SELECT p.relid, coalesce(string_agg(g.tgenabled::text, '' ORDER BY g.tgname), '') AS enabled,
                 string_agg(g.xmin::text, ' ' ORDER BY g.tgname) AS versions
          FROM pythia.tables_with_rows(i.relation) AS p(relid)
          LEFT JOIN pg_trigger g ON g.tgrelid = p.relid AND g.tgname ^@ format('vector_index_%s_', i.id) AND g.tgname !~ '_columns$'
          GROUP BY p.relid) AS t;
END;

-- A text that changes when the rows of an index's table may have changed without its journal: TRUNCATE and rewrites give a table
-- another file; what else there is goes through ALTER TABLE and the like, see vector_following.sql, which writes journal_state.
-- NULL while changes may go unnoticed. It is called with every search.
CREATE OR REPLACE FUNCTION pythia.vector_fingerprint(index_id integer) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (
        SELECT CASE WHEN i.journal_state IS NOT NULL THEN pg_catalog.concat_ws(' ', c.oid,
                   CASE WHEN c.relfilenode OPERATOR(pg_catalog.=) 0 THEN pythia.partition_files(c.oid) ELSE c.relfilenode::pg_catalog.text END,
                   i.journal_state) END
        FROM pythia.vector_index i JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.relation
        WHERE i.id OPERATOR(pg_catalog.=) index_id);
END $$;
COMMENT ON FUNCTION pythia.vector_fingerprint(integer) IS
    'Changes when a table''s rows may have changed without the journal of a vector index; NULL while they may.';

CREATE OR REPLACE FUNCTION pythia.partition_files(relation oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
RETURN (SELECT md5(string_agg(format('%s %s', c.oid, c.relfilenode), ',' ORDER BY c.oid))
        FROM pg_partition_tree(relation) AS p JOIN pg_class c ON c.oid = p.relid WHERE c.relkind <> 'p');
