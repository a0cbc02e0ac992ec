-- Creating, rebuilding, renaming and dropping vector indexes.
--
-- The procedures that wait end their transactions, so they can have no SET clause: all names in them are written in full.

CREATE OR REPLACE PROCEDURE pythia.create_vector_index(
    index_name text, table_name text, vector_column text, include_columns text[] DEFAULT NULL, organization text DEFAULT NULL,
    distance text DEFAULT NULL, target_accuracy integer DEFAULT 90, parameters jsonb DEFAULT '{}', parallel integer DEFAULT 1,
    if_not_exists boolean DEFAULT false)
LANGUAGE plpgsql
AS $$
DECLARE
    new_id  integer;
    failure text;
    state   text;
BEGIN
    PERFORM pythia.check_no_transaction('CREATE VECTOR INDEX');
    IF if_not_exists AND pythia.has_relation(index_name, table_name) THEN
        RAISE NOTICE 'relation "%" already exists, skipping', index_name USING ERRCODE = '42P07';
        RETURN;
    END IF;
    PERFORM pythia.engine_ping();
    new_id := pythia.define_vector_index(
        index_name, table_name, vector_column, include_columns, organization, distance, target_accuracy, parameters, parallel);
    CALL pythia.await_vector_index(new_id, index_name, failure, state);
    IF failure IS NOT NULL THEN
        DELETE FROM pythia.owned_vector_index i WHERE i.id OPERATOR(pg_catalog.=) new_id;
        COMMIT;
        PERFORM pythia.raise_build_failure(pg_catalog.format('could not create vector index "%s"', index_name), failure, state);
    END IF;
END $$;
COMMENT ON PROCEDURE pythia.create_vector_index(text, text, text, text[], text, text, integer, jsonb, integer, boolean) IS
    'Create a vector index and wait until it is built, while others read and write the table.';

CREATE OR REPLACE PROCEDURE pythia.rebuild_vector_index(
    index_name text, target_accuracy integer DEFAULT NULL, organization text DEFAULT NULL, distance text DEFAULT NULL,
    parameters jsonb DEFAULT NULL, parallel integer DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    known   integer := pythia.vector_index_id(index_name);
    failure text;
    state   text;
BEGIN
    PERFORM pythia.check_no_transaction('REBUILD of a vector index');
    PERFORM pythia.engine_ping();
    PERFORM pythia.request_vector_rebuild(known, target_accuracy, organization, distance, parameters, parallel);
    CALL pythia.await_vector_index(known, index_name, failure, state);
    IF failure IS NOT NULL THEN
        PERFORM pythia.raise_build_failure(pg_catalog.format('could not rebuild vector index "%s"', index_name), failure, state);
    END IF;
END $$;
COMMENT ON PROCEDURE pythia.rebuild_vector_index(text, integer, text, text, jsonb, integer) IS
    'Build a vector index anew, with other properties if they are given, and wait. The old version answers meanwhile.';

-- A procedure may commit where PL/pgSQL's memory belongs to the portal and not to a transaction; nothing else tells it
-- beforehand. Without this check COMMIT would fail with "invalid transaction termination".
CREATE OR REPLACE FUNCTION pythia.check_no_transaction(command text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (
        WITH contexts AS MATERIALIZED (SELECT m.name, m.path, m.level FROM pg_backend_memory_contexts m)
        SELECT FROM contexts c JOIN contexts above ON above.path = c.path[1:c.level - 1]
        WHERE c.name = 'SPI Proc' AND above.name = 'PortalContext') THEN
        RETURN;
    END IF;
    RAISE EXCEPTION '% cannot run inside a transaction block', command
        USING ERRCODE = '25001', DETAIL = 'Its definition is committed first, and then built, while others write the table.',
              HINT = 'Commit, and call it outside of a transaction; from Python, connect with autocommit=True.';
END $$;

-- Whether a name is taken in the schema of a table.
CREATE OR REPLACE FUNCTION pythia.has_relation(index_name text, table_name text) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN pythia.is_taken(index_name, pythia.table_relation(table_name));
END $$;

CREATE OR REPLACE FUNCTION pythia.is_taken(index_name text, relation regclass) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parts text[] := parse_ident(index_name);
    taken name := parts[cardinality(parts)];
    place oid := (SELECT c.relnamespace FROM pg_class c WHERE c.oid = relation);
BEGIN
    RETURN EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = place AND c.relname = taken)
        OR EXISTS (SELECT FROM pythia.vector_index i WHERE i.namespace = place AND i.name = taken);
END $$;

-- Commit, and wait until the engine's keeper has built an index; `failure` says why it could not, `state` is its SQLSTATE.
-- Cancelled waiting stops nothing. Nobody waits for an engine that has died: embedded clients start another one, and repeat.
CREATE OR REPLACE PROCEDURE pythia.await_vector_index(index_id integer, index_name text, INOUT failure text, INOUT state text)
LANGUAGE plpgsql
AS $$
DECLARE
    build record;
    shown text;
BEGIN
    LOOP
        COMMIT;
        BEGIN
            PERFORM pythia.watch_vector_indexes();
        EXCEPTION WHEN SQLSTATE '58X01' THEN
            failure := E'The engine has ended.\nHINT:  Run: pythia engine status';
            state := '58X01';
            RETURN;
        END;
        SELECT * INTO build FROM pythia.vector_build_state(index_id);
        EXIT WHEN build.finished;
        IF build.stage IS DISTINCT FROM shown THEN
            RAISE DEBUG 'vector index "%": %', index_name, build.stage;
            shown := build.stage;
        END IF;
        PERFORM pg_catalog.pg_sleep(0.05);
    END LOOP;
    failure := build.failure;
    state := pythia.vector_failure_code(index_id);
END $$;

CREATE OR REPLACE FUNCTION pythia.vector_build_state(index_id integer, OUT finished boolean, OUT failure text, OUT stage text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT i.status IS DISTINCT FROM 'BUILDING',
           CASE WHEN i.id IS NULL THEN 'It was dropped while it was built.'
                WHEN i.status IN ('FAILED', 'UNUSABLE') THEN coalesce(i.error, 'The reason is in the engine''s log.') END,
           concat_ws(' ', i.progress ->> 'stage', (i.progress ->> 'percent') || ' %')
    FROM (SELECT 1) AS one LEFT JOIN pythia.owned_vector_index i ON i.id = index_id;
END;

-- The SQLSTATE of a failed build: that of the engine's own errors, if it is one that callers can act upon.
CREATE OR REPLACE FUNCTION pythia.vector_failure_code(index_id integer) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT CASE WHEN i.error_code = '53200' THEN i.error_code ELSE '55000' END
    FROM (SELECT 1) AS one LEFT JOIN pythia.owned_vector_index i ON i.id = index_id;
END;

-- A failure is text as the engine's errors are written: a message, then DETAIL and HINT in lines of their own.
CREATE OR REPLACE FUNCTION pythia.raise_build_failure(message text, failure text, state text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parts CONSTANT text[] := regexp_split_to_array(replace(failure, E'\nDETAIL:  ', '. '), E'\nHINT:  ');
BEGIN
    IF parts[2] IS NULL THEN
        RAISE EXCEPTION '%', message USING ERRCODE = state, DETAIL = failure;
    END IF;
    RAISE EXCEPTION '%', message USING ERRCODE = state, DETAIL = parts[1], HINT = parts[2];
END $$;

-- Tell the engine that this database has vector indexes to look after.
CREATE OR REPLACE FUNCTION pythia.watch_vector_indexes() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pythia.engine_call('watch', '');
END $$;

-- Renaming and dropping ------------------------------------------------------------------------------------------------------

CREATE OR REPLACE PROCEDURE pythia.rename_vector_index(index_name text, new_name text)
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pythia.set_vector_index_name(pythia.vector_index_id(index_name), new_name);
END $$;
COMMENT ON PROCEDURE pythia.rename_vector_index(text, text) IS 'Rename a vector index; it stays in its schema.';

CREATE OR REPLACE FUNCTION pythia.set_vector_index_name(index_id integer, new_name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation regclass := (SELECT i.relation FROM pythia.owned_vector_index i WHERE i.id = index_id);
BEGIN
    IF relation IS NULL THEN
        RAISE EXCEPTION 'must be owner of the vector index' USING ERRCODE = '42501';
    END IF;
    PERFORM pythia.check_new_index_name(ARRAY[new_name], NULL);
    IF pythia.is_taken(quote_ident(new_name), relation) THEN
        RAISE EXCEPTION 'relation "%" already exists', new_name USING ERRCODE = '42P07';
    END IF;
    UPDATE pythia.owned_vector_index i SET name = new_name WHERE i.id = index_id;
END $$;

CREATE OR REPLACE PROCEDURE pythia.drop_vector_index(index_name text, if_exists boolean DEFAULT false)
LANGUAGE plpgsql
AS $$
DECLARE
    known integer := pythia.vector_index_id(index_name, if_exists);
BEGIN
    IF known IS NULL THEN
        RAISE NOTICE 'vector index "%" does not exist, skipping', index_name;
        RETURN;
    END IF;
    DELETE FROM pythia.owned_vector_index i WHERE i.id OPERATOR(pg_catalog.=) known;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'must be owner of vector index %', index_name USING ERRCODE = '42501';
    END IF;
END $$;
COMMENT ON PROCEDURE pythia.drop_vector_index(text, boolean) IS 'Drop a vector index, in the caller''s transaction; the table''s owner may.';
