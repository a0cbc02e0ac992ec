-- Model files that the engine fetches: from directories of the server, from file URIs, over https and from S3.
--
-- The engine brings a file into its cache, whatever its size, and says what it is; its bytes come into the database in pieces.
-- Each way in is a function of its own whose EXECUTE privilege is the right to use it (privileges.sql). The right is not taken
-- from pythia.calling_role(), as a superuser's ANALYZE runs other people's functions.

-- Fetch and store. Called by our own functions only, which have checked the right.
CREATE OR REPLACE FUNCTION pythia.fetch_files(uri text, credential jsonb) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    files jsonb;
BEGIN
    PERFORM pythia.check_loader(pythia.calling_role());
    files := (pythia.engine_call('fetch', json_build_object('uri', uri, 'credential', credential)::text))[1]::jsonb -> 'files';
    PERFORM pythia.take_model_file(f.sha256, f.size) FROM jsonb_to_recordset(files) AS f(sha256 text, size bigint);
    RETURN files;
END $$;

-- Directories --------------------------------------------------------------------------------------------------------------

-- The graph comes as model.onnx, the files of its external data beside it under their own names. description: a JSON file about
-- the external data, or NULL; it has to be there and readable, what it says is in the graph too.
CREATE OR REPLACE FUNCTION pythia.fetch_directory_file(directory text, file_name text, description text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF pg_has_role(current_user, 'pg_read_server_files', 'USAGE') THEN
        RETURN pythia.fetch_any_directory_file(directory, file_name, description);
    END IF;
    RETURN pythia.fetch_shared_directory_file(directory, file_name, description);
END $$;

-- For roles with privileges of pg_read_server_files only.
CREATE OR REPLACE FUNCTION pythia.fetch_any_directory_file(directory text, file_name text, description text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM convert_from(pg_read_binary_file(pythia.directory_path(directory, description)), 'UTF8')::jsonb
    WHERE description IS NOT NULL;
    RETURN pythia.fetch_files(pythia.file_uri(pythia.directory_path(directory, file_name)), NULL);
END $$;

-- For the directory's readers. Superusers go the other way: their sessions also run code that is not theirs.
CREATE OR REPLACE FUNCTION pythia.fetch_shared_directory_file(directory text, file_name text, description text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pythia.check_directory_reader(directory);
    RETURN pythia.fetch_any_directory_file(directory, file_name, description);
END $$;

CREATE OR REPLACE FUNCTION pythia.file_uri(path text) RETURNS text
LANGUAGE sql IMMUTABLE
RETURN 'file://' || replace(replace(replace(path, '%', '%25'), '#', '%23'), '?', '%3F');

-- URIs ---------------------------------------------------------------------------------------------------------------------

-- A file of the server: for roles with privileges of pg_read_server_files only.
CREATE OR REPLACE FUNCTION pythia.fetch_server_file(uri text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF uri !~ '^file:///' THEN
        RAISE EXCEPTION 'invalid file URI' USING ERRCODE = '22023', HINT = 'Write file:///path/model.onnx.';
    END IF;
    RETURN pythia.fetch_files(uri, NULL);
END $$;

-- An address of the network: for roles with pythia.grant_cloud_access only. credential: the handle of one.
CREATE OR REPLACE FUNCTION pythia.fetch_network_file(uri text, credential uuid) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF uri !~ '^(https?|s3)://' THEN
        RAISE EXCEPTION 'model URI has an unsupported scheme'
            USING ERRCODE = '22023', HINT = 'Use https://host/path, s3://bucket/key or file:///path.';
    END IF;
    RETURN pythia.fetch_files(uri, (SELECT c.attributes FROM pythia.credential c WHERE c.handle = fetch_network_file.credential));
END $$;

-- Fetch what load_onnx_model_cloud names, as the caller.
CREATE OR REPLACE FUNCTION pythia.fetch_uri(uri text, credential text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    handle uuid := (SELECT c.handle FROM pythia.user_credentials c WHERE c.credential_name = lower(credential));
BEGIN
    IF uri IS NULL THEN
        RAISE EXCEPTION 'model URI must not be null' USING ERRCODE = '22004';
    END IF;
    IF credential IS NOT NULL AND handle IS NULL THEN
        RAISE EXCEPTION 'credential "%" does not exist', credential
            USING ERRCODE = '42704', HINT = format('CALL dbms_vector.create_credential(%L, ''{"access_token": "..."}'');', lower(credential));
    END IF;
    IF uri ^@ 'file:' THEN
        RETURN pythia.fetch_server_file(uri);
    END IF;
    RETURN pythia.fetch_network_file(uri, handle);
END $$;

-- Credentials --------------------------------------------------------------------------------------------------------------

-- The caller's own credentials. In a view, unlike in a SECURITY DEFINER function, current_user is the role whose privileges
-- count; so this is where credentials are written, too. Nobody may read the attributes back (privileges.sql).
CREATE OR REPLACE VIEW pythia.user_credentials WITH (security_barrier = true) AS
SELECT name AS credential_name, handle, attributes
FROM pythia.credential
WHERE owner = to_regrole(quote_ident(current_user))
WITH LOCAL CHECK OPTION;
COMMENT ON VIEW pythia.user_credentials IS 'The caller''s credentials for fetching models; their attributes cannot be read.';

CREATE OR REPLACE FUNCTION pythia.create_credential(name text, attributes jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known CONSTANT text[] := '{access_token,username,password,access_key_id,secret_access_key,session_token,region,endpoint}';
    wrong text := (SELECT k.key FROM jsonb_each(attributes) AS k
                   WHERE k.key <> ALL (known) OR jsonb_typeof(k.value) <> 'string' LIMIT 1);
BEGIN
    IF coalesce(name, '') = '' THEN  -- PostgreSQL's own error would show the attributes
        RAISE EXCEPTION 'credential name must not be empty' USING ERRCODE = '22004';
    END IF;
    IF wrong IS NOT NULL OR attributes IS NULL OR attributes = '{}' THEN
        RAISE EXCEPTION 'invalid credential: %', coalesce(format('key "%s"', wrong), 'no attributes')
            USING ERRCODE = '22023', HINT = format('Keys, all with text values: %s.', array_to_string(known, ', '));
    END IF;
    INSERT INTO pythia.user_credentials (credential_name, attributes) VALUES (lower(name), attributes);
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION 'credential "%" already exists', lower(name)
        USING ERRCODE = '42710', HINT = format('CALL dbms_vector.drop_credential(%L);', lower(name));
END $$;

CREATE OR REPLACE FUNCTION pythia.drop_credential(name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM pythia.user_credentials c WHERE c.credential_name = lower(name);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'credential "%" does not exist', name USING ERRCODE = '42704';
    END IF;
END $$;

-- Let a role fetch models over the network. The server asks the addresses that the role names; what it may load is another
-- right (pythia.grant_create_model), and files of the server are another one (pg_read_server_files).
CREATE OR REPLACE PROCEDURE pythia.grant_cloud_access(role regrole)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('GRANT EXECUTE ON PROCEDURE dbms_vector.load_onnx_model_cloud TO %s', role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION pythia.fetch_network_file TO %s', role);
    EXECUTE format('GRANT INSERT (credential_name, attributes) ON pythia.user_credentials TO %s', role);
END $$;
COMMENT ON PROCEDURE pythia.grant_cloud_access(regrole) IS
    'Let a role fetch models over https and from S3, and keep credentials for it.';
