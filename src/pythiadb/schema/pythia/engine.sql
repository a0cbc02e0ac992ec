-- The way from a backend to the engine beside the server: one named dblink connection a backend, signed messages.

-- The role on whose behalf a SECURITY DEFINER function was called. Inside such a function current_user is the definer; the
-- role that the session has set is the one whose privileges count.
CREATE OR REPLACE FUNCTION pythia.calling_role() RETURNS name
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE pg_catalog.current_setting('role') WHEN 'none' THEN session_user ELSE pg_catalog.current_setting('role') END;

-- Where the engine listens: the folder "pythia" in the server's first socket folder, under the server's port number.
CREATE OR REPLACE FUNCTION pythia.engine_conninfo() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT format(
        'host=%s port=%s dbname=%s user=pythia application_name=%s connect_timeout=10 client_encoding=UTF8',
        quote_literal(btrim(split_part(current_setting('unix_socket_directories'), ',', 1)) || '/pythia'),
        current_setting('port'), quote_literal(current_database()), pg_backend_pid());
END;

-- Send one command and return the lines of its answer. The message carries a time and a signature: whoever else gets hold of
-- the connection cannot make one, and an old one is refused. A lost connection is opened again, once.
-- An attachment is bulk data outside the signature; it must be checked by other means (files are, by their hash).
--
-- dblink's asynchronous functions, because dblink() itself waits for the whole answer even when the query is cancelled, and
-- takes the name of a connection that is not open for a connection string. A cancelled call closes the connection: that is how
-- the engine learns that nobody waits any more.
--
-- Every statement here costs each call some microseconds, and so would SECURITY DEFINER and SET: only our own functions may
-- call this one, and they carry both.
-- When the engine is not there it raises an error, or for an `optional` call returns NULL.
DROP FUNCTION IF EXISTS pythia.engine_call(text, text, text);
CREATE OR REPLACE FUNCTION pythia.engine_call(verb text, payload text, attachment text DEFAULT NULL, optional boolean DEFAULT false)
RETURNS text[]
LANGUAGE plpgsql STABLE COST 10000
AS $$
DECLARE
    connection CONSTANT text := 'pythia';
    body   text := floor(extract(epoch FROM clock_timestamp()))::bigint || ' ' || verb || ' ' || payload;
    sent   integer;
    lines  text[];
    reason text;
BEGIN
    FOR attempt IN 1..2 LOOP
        BEGIN
            SELECT @extschema:dblink@.dblink_send_query(connection, concat(
                encode(sha256(s.secret || sha256(convert_to(body, 'UTF8'))), 'hex'), ' ', body, E'\n' || attachment))
            INTO sent FROM pythia.engine_secret s;
            IF sent = 1 THEN
                -- the second read, which gives no rows, ends the query on the connection
                SELECT array_agg(line) INTO lines FROM (
                    SELECT line FROM @extschema:dblink@.dblink_get_result(connection) AS answer(line text)
                    UNION ALL
                    SELECT line FROM @extschema:dblink@.dblink_get_result(connection) AS finish(line text)) AS answer;
                RETURN lines;
            END IF;
            reason := @extschema:dblink@.dblink_error_message(connection);
        EXCEPTION
            WHEN connection_exception OR internal_error THEN
                GET STACKED DIAGNOSTICS reason = MESSAGE_TEXT;
            WHEN query_canceled THEN
                PERFORM @extschema:dblink@.dblink_disconnect(connection);
                RAISE;
            WHEN OTHERS THEN  -- the engine's own answer
                PERFORM FROM @extschema:dblink@.dblink_get_result(connection, false) AS finish(line text);
                RAISE;
        END;
        IF attempt = 1 THEN
            FOR trial IN 1..2 LOOP  -- a worker may end between taking a connection and its greeting
                BEGIN
                    IF connection = ANY (@extschema:dblink@.dblink_get_connections()) THEN
                        PERFORM @extschema:dblink@.dblink_disconnect(connection);
                    END IF;
                    PERFORM @extschema:dblink@.dblink_connect_u(connection, pythia.engine_conninfo());
                    reason := NULL;
                    EXIT;
                EXCEPTION WHEN connection_exception OR sqlclient_unable_to_establish_sqlconnection THEN
                    GET STACKED DIAGNOSTICS reason = PG_EXCEPTION_DETAIL;
                END;
            END LOOP;
            EXIT WHEN reason IS NOT NULL;
        END IF;
    END LOOP;
    IF optional THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'the engine is not available'
        USING ERRCODE = '58X01', DETAIL = reason, HINT = 'Run: pythia engine status';
END $$;

CREATE OR REPLACE FUNCTION pythia.engine_ping() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (pythia.engine_call('ping', ''))[1];
END $$;
COMMENT ON FUNCTION pythia.engine_ping() IS 'Answers "pong" when the engine can be reached.';

CREATE OR REPLACE FUNCTION pythia.engine_status() RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (pythia.engine_call('status', ''))[1]::jsonb;
END $$;
COMMENT ON FUNCTION pythia.engine_status() IS 'Workers, models loaded, calls, latency, memory and running calls of the engine.';
