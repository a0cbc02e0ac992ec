-- Models as database objects: storing, checking, naming, dropping.
--
-- A model is written in the caller's transaction: chunks, then the row, then the view that carries its name. The engine is
-- given the bytes before the commit (its cache is keyed by content), so that it can check and probe them, and so that the
-- loading transaction can already score.

-- Remove models whose view was dropped and chunks that no model refers to. One load or clean-up at a time.
CREATE OR REPLACE FUNCTION pythia.remove_orphaned_models() RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    removed bigint;
BEGIN
    PERFORM pg_advisory_xact_lock('pythia.model_chunk'::regclass::oid::bigint);
    DELETE FROM pythia.model m
    WHERE m.relation IS NOT NULL AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = m.relation);
    GET DIAGNOSTICS removed = ROW_COUNT;
    DELETE FROM pythia.model_chunk c
    WHERE NOT EXISTS (SELECT FROM pythia.model_file f WHERE f.sha256 = c.sha256);
    RETURN removed;
END $$;

-- Store one piece of a file. The lock keeps a clean-up from removing a piece that another load has just found present.
-- The files of models are complete and stay as they are; what an unfinished load may have left is replaced.
CREATE OR REPLACE FUNCTION pythia.put_model_chunk(sha256 text, no integer, data bytea) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock('pythia.model_chunk'::regclass::oid::bigint);
    IF EXISTS (SELECT FROM pythia.model_file f WHERE f.sha256 = put_model_chunk.sha256) THEN
        RETURN;
    END IF;
    IF no = 0 THEN
        DELETE FROM pythia.model_chunk c WHERE c.sha256 = put_model_chunk.sha256;
    END IF;
    INSERT INTO pythia.model_chunk VALUES (sha256, no, data)
    ON CONFLICT ON CONSTRAINT model_chunk_pkey DO UPDATE SET data = excluded.data;
END $$;

-- Give the engine the bytes of a file, unless it has them and a model has the file already. The engine checks the hash; that
-- it knows the file from elsewhere says nothing about these chunks.
CREATE OR REPLACE FUNCTION pythia.stage_model_file(sha256 text, size bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    piece  pythia.model_chunk;
    answer text;
BEGIN
    IF EXISTS (SELECT FROM pythia.model_file f WHERE f.sha256 = stage_model_file.sha256)
       AND (pythia.engine_call('has-file', json_build_object('sha256', sha256)::text))[1] = 'yes' THEN
        RETURN;
    END IF;
    FOR piece IN SELECT * FROM pythia.model_chunk c WHERE c.sha256 = stage_model_file.sha256 ORDER BY c.no LOOP
        answer := (pythia.engine_call(
            'stage', json_build_object('sha256', sha256, 'no', piece.no, 'size', size)::text, encode(piece.data, 'base64')))[1];
    END LOOP;
    IF answer IS DISTINCT FROM 'complete' THEN
        RAISE EXCEPTION 'model file % is incomplete', left(sha256, 12) USING ERRCODE = '22X01';
    END IF;
END $$;

-- Record a model whose chunks are stored: the engine checks the files, runs the model once, and says what it is.
-- files: [{"name": ..., "sha256": ..., "size": ...}]. Returns the id for name_model.
CREATE OR REPLACE FUNCTION pythia.register_model(spec jsonb, metadata jsonb, files jsonb) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    hash  text := encode(sha256(convert_to(jsonb_build_object('spec', spec, 'files', files)::text, 'UTF8')), 'hex');
    probed jsonb;
    new_id bigint;
BEGIN
    PERFORM pythia.stage_model_file(f.sha256, f.size)
    FROM jsonb_to_recordset(files) AS f(sha256 text, size bigint);
    probed := (pythia.engine_call(
        'open', json_build_object('package', hash, 'spec', spec, 'files', files)::text))[1]::jsonb;
    INSERT INTO pythia.model AS m (loaded_by, function, package, spec, metadata, facts, size)
    SELECT pythia.calling_role(), spec ->> 'function', hash, register_model.spec, register_model.metadata, probed, sum((f ->> 'size')::bigint)
    FROM jsonb_array_elements(files) AS f
    RETURNING m.id INTO new_id;
    INSERT INTO pythia.model_file
    SELECT new_id, f.name, f.sha256, f.size FROM jsonb_to_recordset(files) AS f(name text, sha256 text, size bigint);
    RETURN new_id;
END $$;

-- Tie a registered model to its view. Only its loader, only once, only to a view of his own.
CREATE OR REPLACE FUNCTION pythia.name_model(id bigint, relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = name_model.relation AND c.relkind = 'v'
                   AND c.relowner = (SELECT r.oid FROM pg_roles r WHERE r.rolname = pythia.calling_role())) THEN
        RAISE EXCEPTION 'must be owner of view %', relation USING ERRCODE = '42501';
    END IF;
    UPDATE pythia.model m SET relation = name_model.relation
    WHERE m.id = name_model.id AND m.relation IS NULL AND m.loaded_by = pythia.calling_role();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no unnamed model %', id USING ERRCODE = '42704';
    END IF;
END $$;

-- Split a model's name as PostgreSQL splits one in SQL text: unquoted parts fold to lower case.
CREATE OR REPLACE FUNCTION pythia.model_name(name text) RETURNS text[]
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    parts text[] := pg_catalog.parse_ident(name);
BEGIN
    IF pg_catalog.cardinality(parts) = 1 THEN
        parts := ARRAY[pg_catalog.current_schema()::text] OPERATOR(pg_catalog.||) parts;
    END IF;
    IF pg_catalog.cardinality(parts) <> 2 OR parts[1] IS NULL THEN
        RAISE EXCEPTION 'invalid model name: "%"', name USING ERRCODE = '42602';
    END IF;
    RETURN parts;
END $$;

-- Create a model from stored chunks. Runs as the caller, who comes to own the model.
CREATE OR REPLACE FUNCTION pythia.create_model(name text, spec jsonb, metadata jsonb, files jsonb) RETURNS regclass
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    parts    text[] := pythia.model_name(name);
    relation text := pg_catalog.format('%I.%I', parts[1], parts[2]);
    id       bigint;
BEGIN
    IF pg_catalog.to_regclass(relation) IS NOT NULL THEN
        RAISE EXCEPTION 'relation "%" already exists', parts[2]
            USING ERRCODE = '42P07', HINT = pg_catalog.format('CALL dbms_vector.drop_onnx_model(%L);', relation);
    END IF;
    id := pythia.register_model(spec, metadata, files);
    EXECUTE pg_catalog.format('CREATE VIEW %s AS SELECT * FROM pythia.model_details WHERE id = %s', relation, id);
    PERFORM pythia.name_model(id, relation::pg_catalog.regclass);
    RETURN relation::pg_catalog.regclass;
END $$;
COMMENT ON FUNCTION pythia.create_model(text, jsonb, jsonb, jsonb) IS
    'Make a model out of files stored with put_model_chunk. pythia model load and dbms_vector.load_onnx_model do it for you.';

-- Store bytes as the chunks of one file and return {"name", "sha256", "size"}.
CREATE OR REPLACE FUNCTION pythia.put_model_file(name text, data bytea) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    chunk CONSTANT integer := 1048576;
    hash  text := encode(sha256(data), 'hex');
BEGIN
    PERFORM pythia.put_model_chunk(hash, n, substring(data FROM n * chunk + 1 FOR chunk))
    FROM generate_series(0, (length(data) - 1) / chunk) AS n;
    RETURN jsonb_build_object('name', name, 'sha256', hash, 'size', length(data));
END $$;

-- Make a model of an ONNX file that takes strings. The engine reads the graph and fills in what the metadata leave open.
CREATE OR REPLACE FUNCTION pythia.create_model_from_onnx(name text, data bytea, metadata jsonb) RETURNS regclass
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    file jsonb := pythia.put_model_file('model.onnx', data);
BEGIN
    RETURN pythia.create_model(name, pythia.inspect_onnx(file, metadata), metadata, pg_catalog.jsonb_build_array(file));
END $$;

CREATE OR REPLACE FUNCTION pythia.inspect_onnx(file jsonb, metadata jsonb) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pythia.stage_model_file(file ->> 'sha256', (file ->> 'size')::bigint);
    RETURN (pythia.engine_call(
        'inspect', json_build_object('sha256', file ->> 'sha256', 'metadata', metadata)::text))[1]::jsonb;
END $$;

-- Drop a model by dropping its view, as the caller: ownership and dependent objects are PostgreSQL's business.
CREATE OR REPLACE FUNCTION pythia.drop_model(name text, if_exists boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    relation pg_catalog.regclass := pg_catalog.to_regclass(name);
BEGIN
    IF relation IS NULL AND if_exists THEN
        RETURN;
    END IF;
    IF relation IS NULL OR NOT pythia.is_model(relation) THEN
        RAISE EXCEPTION 'model "%" does not exist', name
            USING ERRCODE = '42704', HINT = 'The models that you may use: SELECT relation FROM pythia.model;';
    END IF;
    EXECUTE pg_catalog.format('DROP VIEW %s', relation);
    PERFORM pythia.remove_orphaned_models();
END $$;

CREATE OR REPLACE FUNCTION pythia.is_model(relation regclass) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN EXISTS (SELECT FROM pythia.model m WHERE m.relation = is_model.relation);

-- Directories -----------------------------------------------------------------------------------------------------------

-- Who may call it is PostgreSQL's business: roles with privileges of pg_read_server_files (privileges.sql). The right is not
-- taken from pythia.calling_role(): that is the session's role, and a superuser's ANALYZE runs other people's functions.
CREATE OR REPLACE PROCEDURE pythia.create_directory(name text, path text, readers regrole[] DEFAULT '{}')
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO pythia.directory AS d VALUES (lower(name), path, readers)
    ON CONFLICT ON CONSTRAINT directory_pkey DO UPDATE SET path = excluded.path, readers = excluded.readers;
END $$;
COMMENT ON PROCEDURE pythia.create_directory(text, text, regrole[]) IS
    'Name a folder of the server that load_onnx_model may read, and the roles that may use it.';

-- Read a file of a named directory in one piece (bytea ends at 1 GB).
CREATE OR REPLACE FUNCTION pythia.read_directory_file(directory text, file_name text) RETURNS bytea
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF pg_has_role(current_user, 'pg_read_server_files', 'USAGE') THEN
        RETURN pythia.read_any_directory_file(directory, file_name);
    END IF;
    RETURN pythia.read_shared_directory_file(directory, file_name);
END $$;

-- For roles with privileges of pg_read_server_files only.
CREATE OR REPLACE FUNCTION pythia.read_any_directory_file(directory text, file_name text) RETURNS bytea
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    folder text := (SELECT d.path FROM pythia.directory d WHERE d.name = lower(directory));
BEGIN
    IF folder IS NULL THEN
        RAISE EXCEPTION 'directory "%" does not exist', directory
            USING ERRCODE = '42704', HINT = format('CALL pythia.create_directory(%L, ''/path/on/the/server'');', lower(directory));
    END IF;
    IF file_name ~ '(^|/)\.\.(/|$)' OR file_name LIKE '/%' THEN
        RAISE EXCEPTION 'file name "%" leaves its directory', file_name USING ERRCODE = '22023';
    END IF;
    RETURN pg_read_binary_file(folder || '/' || file_name);
END $$;

-- For the directory's readers. Superusers go the other way: their sessions also run code that is not theirs.
CREATE OR REPLACE FUNCTION pythia.read_shared_directory_file(directory text, file_name text) RETURNS bytea
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    readers regrole[] := (SELECT d.readers FROM pythia.directory d WHERE d.name = lower(directory));
BEGIN
    IF readers IS NOT NULL AND NOT EXISTS (
            SELECT FROM unnest(readers) AS r JOIN pg_roles c ON c.rolname = pythia.calling_role()
            WHERE NOT c.rolsuper AND pg_has_role(c.oid, r, 'USAGE')) THEN
        RAISE EXCEPTION 'permission denied for directory "%"', directory USING ERRCODE = '42501';
    END IF;
    RETURN pythia.read_any_directory_file(directory, file_name);
END $$;

-- Let a role load models.
CREATE OR REPLACE PROCEDURE pythia.grant_create_model(role regrole)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION pythia.put_model_chunk, pythia.put_model_file, pythia.inspect_onnx, pythia.register_model, pythia.name_model TO %s', role);
END $$;
COMMENT ON PROCEDURE pythia.grant_create_model(regrole) IS 'Let a role load models; needs the right to grant on the functions of schema pythia.';
