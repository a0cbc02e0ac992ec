-- Oracle's package DBMS_OUTPUT, as far as blocks call it: lines come as notices. Where the extension orafce has brought its own,
-- that stays.

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_proc WHERE pronamespace = 'dbms_output'::regnamespace AND proname = 'put_line' AND prokind = 'f') THEN
        RETURN;
    END IF;
    CREATE OR REPLACE PROCEDURE dbms_output.put_line(a text)
    LANGUAGE plpgsql
    AS $body$
    BEGIN
        RAISE NOTICE '%', coalesce(a, '');
    END $body$;
    COMMENT ON PROCEDURE dbms_output.put_line(text) IS 'Send a line to the client as a notice.';
END $$;
