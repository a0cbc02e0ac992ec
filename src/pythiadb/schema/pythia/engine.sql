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

-- Send one command and return its rows. The message carries a time and a signature: whoever else gets hold of the
-- connection cannot make one, and an old one is refused. A lost connection is opened again, once.
--
-- An attachment is bulk data outside the signature; it must be checked by other means (files are, by their hash).
--
-- dblink's asynchronous functions, because dblink() itself waits for the whole answer even when the query is cancelled. A
-- cancelled call closes the connection: that is how the engine learns that nobody waits any more.
CREATE OR REPLACE FUNCTION pythia.engine_call(verb text, payload text, attachment text DEFAULT NULL) RETURNS SETOF text
LANGUAGE plpgsql STABLE SECURITY DEFINER COST 10000 SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    connection CONSTANT text := 'pythia';
    body    text := floor(extract(epoch FROM clock_timestamp()))::bigint || ' ' || verb || ' ' || payload;
    message text := encode(sha256((SELECT s.secret FROM pythia.engine_secret s) || sha256(convert_to(body, 'UTF8'))), 'hex') || ' ' || body || coalesce(E'\n' || attachment, '');
    reason  text;
BEGIN
    FOR attempt IN 1..2 LOOP
        BEGIN
            -- dblink would take an unknown name for a connection string
            IF NOT coalesce(connection = ANY (@extschema:dblink@.dblink_get_connections()), false) THEN
                PERFORM @extschema:dblink@.dblink_connect_u(connection, pythia.engine_conninfo());
            END IF;
            IF @extschema:dblink@.dblink_send_query(connection, message) = 1 THEN
                RETURN QUERY SELECT answer.line FROM @extschema:dblink@.dblink_get_result(connection) AS answer(line text);
                PERFORM FROM @extschema:dblink@.dblink_get_result(connection) AS finish(line text);
                RETURN;
            END IF;
            reason := @extschema:dblink@.dblink_error_message(connection);
        EXCEPTION
            WHEN connection_exception OR sqlclient_unable_to_establish_sqlconnection OR internal_error THEN
                GET STACKED DIAGNOSTICS reason = MESSAGE_TEXT;
            WHEN query_canceled THEN
                PERFORM @extschema:dblink@.dblink_disconnect(connection);
                RAISE;
            WHEN OTHERS THEN  -- the engine's own answer
                PERFORM FROM @extschema:dblink@.dblink_get_result(connection, false) AS finish(line text);
                RAISE;
        END;
        IF connection = ANY (@extschema:dblink@.dblink_get_connections()) THEN
            PERFORM @extschema:dblink@.dblink_disconnect(connection);
        END IF;
    END LOOP;
    RAISE EXCEPTION 'the engine is not available'
        USING ERRCODE = '58X01', DETAIL = reason, HINT = 'Run: pythia engine status';
END $$;

CREATE OR REPLACE FUNCTION pythia.engine_ping() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT line FROM pythia.engine_call('ping', '') AS line;
END;
COMMENT ON FUNCTION pythia.engine_ping() IS 'Answers "pong" when the engine can be reached.';

CREATE OR REPLACE FUNCTION pythia.engine_status() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT line::jsonb FROM pythia.engine_call('status', '') AS line;
END;
COMMENT ON FUNCTION pythia.engine_status() IS 'Workers, models loaded, calls, latency, memory and running calls of the engine.';
