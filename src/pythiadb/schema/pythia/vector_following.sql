-- Vector indexes follow their tables: dropped, renamed, moved, made a partition, deprived of what an index needs.
-- Event triggers see every such statement, in its own transaction.

-- Why an index cannot be built or used as its table is now; NULL if nothing is wrong.
CREATE OR REPLACE FUNCTION pythia.vector_index_problem(i pythia.vector_index) RETURNS text
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT CASE
        WHEN key.columns IS DISTINCT FROM 1 OR key.name <> i.key_column OR key.family IS DISTINCT FROM i.key_type
            THEN format('table "%s" has no primary key of column "%s" any more', c.relname, i.key_column)
        WHEN vector.type IS DISTINCT FROM i.vector_type
            THEN format('column "%s" of table "%s" has another type than when the index was made', i.column_name, c.relname)
        WHEN c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = c.oid)
            THEN format('table "%s" has inheritance children', c.relname)
        WHEN EXISTS (SELECT FROM pythia.tables_with_rows(i.relation) AS t(relid) JOIN pg_class k ON k.oid = t.relid
                     WHERE k.relkind <> 'r' OR k.relpersistence <> 'p')
            THEN format('table "%s" is unlogged or foreign, or a partition of it is', c.relname)
        WHEN NOT state.fits THEN format('triggers of the index on table "%s" are disabled', c.relname) END
    FROM pg_class c
    CROSS JOIN pythia.journal_triggers_state(i) AS state
    LEFT JOIN pythia.table_key(i.relation) AS key ON true
    LEFT JOIN pg_attribute a ON a.attrelid = i.relation AND a.attname = i.column_name AND NOT a.attisdropped
    LEFT JOIN LATERAL pythia.vector_column_type(a) AS vector ON true
    WHERE c.oid = i.relation;
END;

-- What vector_index.journal_state should be.
CREATE OR REPLACE FUNCTION pythia.journal_state(i pythia.vector_index) RETURNS text
LANGUAGE sql STABLE
RETURN CASE WHEN pythia.vector_index_problem(i) IS NULL THEN coalesce((pythia.journal_triggers_state(i)).state, 'no partitions') END;

-- Definitions whose table is gone, or whose columns are. Normally a DROP removes them by way of the event trigger below.
CREATE OR REPLACE FUNCTION pythia.remove_orphaned_vector_indexes() RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    DELETE FROM pythia.vector_index i
    WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = i.relation)
       OR EXISTS (SELECT FROM unnest(ARRAY[i.key_column, i.column_name] || i.include_columns) AS wanted(c)
                  WHERE NOT EXISTS (SELECT FROM pg_attribute a
                                    WHERE a.attrelid = i.relation AND a.attname = wanted.c AND NOT a.attisdropped));
END;

-- A column's DROP has dropped the trigger that lists the index's columns. Other triggers that were dropped are made again. What
-- kept an index from being used may be gone too: a child of its table, a partition that is a foreign table.
CREATE OR REPLACE FUNCTION pythia.follow_dropped_tables() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('pythia.defining', true) = 'on' OR NOT EXISTS (SELECT FROM pythia.vector_index) THEN
        RETURN;
    END IF;
    DELETE FROM pythia.vector_index i
    USING (SELECT d.objid, bool_or(d.objsubid = 0) AS whole FROM pg_event_trigger_dropped_objects() AS d
           WHERE d.classid = 'pg_class'::regclass GROUP BY d.objid) AS dropped
    WHERE i.relation = dropped.objid
      AND (dropped.whole OR NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = i.relation
                                        AND t.tgname = format('vector_index_%s_columns', i.id)));
    IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() AS d
               WHERE d.object_type = 'trigger' AND d.original
                  OR d.object_type IN ('table', 'foreign table') AND NOT d.is_temporary
                     AND EXISTS (SELECT FROM pythia.vector_index i WHERE i.status = 'UNUSABLE')) THEN
        PERFORM pythia.follow_tables('{}');
    END IF;
END $$;

-- After ALTER TABLE and the like. A table that is created concerns those only whose child or partition it is.
CREATE OR REPLACE FUNCTION pythia.follow_altered_tables() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    altered oid[] := ARRAY(SELECT d.objid FROM pg_event_trigger_ddl_commands() AS d);
BEGIN
    IF current_setting('pythia.defining', true) = 'on'
       OR tg_tag = 'CREATE TABLE' AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = ANY (altered)) THEN
        RETURN;
    END IF;
    PERFORM pythia.follow_tables(altered);
END $$;

-- Follow the tables that were altered or whose schema was, and those whose triggers are not what they were or should be.
CREATE OR REPLACE FUNCTION pythia.follow_tables(altered oid[]) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    concerned integer;
BEGIN
    FOR concerned IN
        SELECT i.id FROM pythia.vector_index i
        WHERE i.relation = ANY (altered) OR i.namespace = ANY (altered) OR (pythia.journal_state(i) = i.journal_state) IS NOT TRUE
           OR cardinality(pythia.wrong_journal_triggers(i)) > 0
    LOOP
        PERFORM pythia.follow_table(concerned);
    END LOOP;
END $$;

-- Versions hold INCLUDE columns by name: one that was made before they were renamed could take one for another.
CREATE OR REPLACE FUNCTION pythia.forget_renamed_columns(index_id integer, names name[]) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    IF EXISTS (SELECT FROM pythia.vector_index i WHERE i.id = index_id AND i.include_columns <> names) THEN
        UPDATE pythia.vector_index i SET status = 'BUILDING' WHERE i.id = index_id AND i.status = 'VALID';
        DELETE FROM pythia.vector_index_version v WHERE v.index_id = forget_renamed_columns.index_id;
    END IF;
END $$;

-- Bring an index up to its table: names, triggers, and whether it can be used. The keeper builds it anew where that changed.
CREATE OR REPLACE FUNCTION pythia.follow_table(index_id integer) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    names   name[];
    problem text;
BEGIN
    SELECT array_agg(a.attname ORDER BY u.n) INTO names
    FROM pythia.vector_index i
    JOIN pg_trigger t ON t.tgrelid = i.relation AND t.tgname = format('vector_index_%s_columns', i.id)
    CROSS JOIN LATERAL unnest(t.tgattr::int2[]) WITH ORDINALITY AS u(number, n)
    JOIN pg_attribute a ON a.attrelid = t.tgrelid AND a.attnum = u.number
    WHERE i.id = index_id;
    PERFORM pythia.forget_renamed_columns(index_id, names[3:]);
    UPDATE pythia.vector_index i
    SET namespace = c.relnamespace, key_column = coalesce(names[1], i.key_column), column_name = coalesce(names[2], i.column_name),
        include_columns = coalesce(names[3:], i.include_columns)
    FROM pg_class c WHERE i.id = index_id AND c.oid = i.relation;
    IF pythia.are_triggers_disabled(index_id) THEN
        UPDATE pythia.vector_index i SET journal_state = NULL WHERE i.id = index_id;
    ELSE
        PERFORM pythia.define_vector_index_objects(index_id);
    END IF;
    problem := (SELECT pythia.vector_index_problem(i) FROM pythia.vector_index i WHERE i.id = index_id);
    IF problem IS NOT NULL THEN
        UPDATE pythia.vector_index i SET status = 'UNUSABLE', error = problem, progress = NULL WHERE i.id = index_id;
        DELETE FROM pythia.vector_index_version v WHERE v.index_id = follow_table.index_id;
    ELSE
        UPDATE pythia.vector_index i SET status = 'BUILDING', error = NULL WHERE i.id = index_id AND i.status = 'UNUSABLE'
            AND NOT EXISTS (SELECT FROM pythia.vector_index_version v WHERE v.index_id = i.id);  -- one that has a version lacks memory
    END IF;
END $$;

-- Whether somebody has switched the journal off, in the table or a partition. The trigger that holds the columns is always off.
CREATE OR REPLACE FUNCTION pythia.are_triggers_disabled(index_id integer) RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (
    SELECT FROM pythia.vector_index i
    CROSS JOIN LATERAL (SELECT i.relation::oid UNION SELECT pythia.tables_with_rows(i.relation)) AS p(relid)
    JOIN pg_trigger t ON t.tgrelid = p.relid
    WHERE i.id = index_id AND t.tgname ^@ format('vector_index_%s_', i.id) AND t.tgname !~ '_columns$' AND t.tgenabled = 'D');

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'pythia_dropped_tables') THEN
        CREATE EVENT TRIGGER pythia_dropped_tables ON sql_drop EXECUTE FUNCTION pythia.follow_dropped_tables();
        CREATE EVENT TRIGGER pythia_altered_tables ON ddl_command_end
            WHEN TAG IN ('ALTER TABLE', 'ALTER TRIGGER', 'ALTER SCHEMA', 'CREATE TABLE', 'CREATE TRIGGER') EXECUTE FUNCTION pythia.follow_altered_tables();
        -- In sessions with replication role "replica" too: a trigger that is made there may change vectors on their way.
        ALTER EVENT TRIGGER pythia_altered_tables ENABLE ALWAYS;
    END IF;
END $$;
