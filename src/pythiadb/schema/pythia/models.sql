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
    PERFORM pythia.remove_orphaned_view(d.view)
    FROM pythia.model_detail d JOIN pythia.model m ON m.id = d.model_id JOIN pg_class v ON v.oid = d.view
    WHERE m.relation IS NOT NULL AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = m.relation);
    DELETE FROM pythia.model m
    WHERE m.relation IS NOT NULL AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = m.relation);
    GET DIAGNOSTICS removed = ROW_COUNT;
    DELETE FROM pythia.model_chunk c
    WHERE NOT EXISTS (SELECT FROM pythia.model_file f WHERE f.sha256 = c.sha256);
    RETURN removed;
END $$;

-- Remove a detail view of a model that is gone, unless something depends on it or holds it: such a view stays, and is empty.
CREATE OR REPLACE FUNCTION pythia.remove_orphaned_view(view regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET lock_timeout = '100ms' SET client_min_messages = warning
AS $$
BEGIN
    EXECUTE format('DROP VIEW IF EXISTS %s', view);
EXCEPTION WHEN dependent_objects_still_exist OR lock_not_available THEN
    NULL;
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
    INSERT INTO pythia.model AS m (loaded_by, function, package, spec, metadata, facts, size, external_data, build_duration)
    SELECT pythia.calling_role(), spec ->> 'function', hash, register_model.spec, register_model.metadata, probed, sum(f.size),
           bool_or(f.name NOT IN (spec ->> 'graph', coalesce(spec ->> 'tokenizer', ''))),
           extract(epoch FROM clock_timestamp() - statement_timestamp())
    FROM jsonb_to_recordset(files) AS f(name text, size bigint)
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

-- The view of a model by its name as in SQL text. Runs under the caller's search_path.
CREATE OR REPLACE FUNCTION pythia.model_relation(name text) RETURNS regclass
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    relation pg_catalog.regclass := pg_catalog.to_regclass(name);
BEGIN
    IF relation IS NULL OR NOT pythia.is_model(relation) THEN
        RAISE EXCEPTION 'model "%" does not exist', name
            USING ERRCODE = '42704', HINT = 'The models that you may use: SELECT relation FROM pythia.model;';
    END IF;
    RETURN relation;
END $$;

-- Refuse a name that is taken, or too long for the detail views, whose names put five characters before it.
CREATE OR REPLACE FUNCTION pythia.check_new_model(schema_name text, name text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation text := format('%I.%I', schema_name, name);
BEGIN
    IF octet_length(name) > 58 THEN
        RAISE EXCEPTION 'model name "%" is too long', name
            USING ERRCODE = '42622', DETAIL = 'A model''s name has at most 58 bytes.';
    END IF;
    IF to_regclass(relation) IS NOT NULL THEN
        RAISE EXCEPTION 'relation "%" already exists', name
            USING ERRCODE = '42P07', HINT = format('CALL dbms_vector.drop_onnx_model(%L);', relation);
    END IF;
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
    PERFORM pythia.check_new_model(parts[1], parts[2]);
    id := pythia.register_model(spec, metadata, files);
    EXECUTE pg_catalog.format('CREATE VIEW %s AS SELECT * FROM pythia.model_details WHERE id = %s', relation, id);
    PERFORM pythia.name_model(id, relation::pg_catalog.regclass);
    PERFORM pythia.create_detail_views(relation::pg_catalog.regclass);
    RETURN relation::pg_catalog.regclass;
END $$;
COMMENT ON FUNCTION pythia.create_model(text, jsonb, jsonb, jsonb) IS
    'Make a model out of files stored with put_model_chunk. pythia model load and dbms_vector.load_onnx_model do it for you.';

-- Make a model of stored files, the graph being model.onnx. The engine reads the graph and fills in what the metadata leave open.
CREATE OR REPLACE FUNCTION pythia.create_model_from_files(name text, files jsonb, metadata jsonb) RETURNS regclass
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    package jsonb := pythia.inspect_files(files, metadata);
BEGIN
    RETURN pythia.create_model(name, package -> 'spec', metadata, package -> 'files');
END $$;

-- Ask the engine what files make; returns {"spec", "files"}. A graph that had to be changed is stored in place of the given one.
CREATE OR REPLACE FUNCTION pythia.inspect_files(files jsonb, metadata jsonb) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    package jsonb;
BEGIN
    PERFORM pythia.stage_model_file(f.sha256, f.size) FROM jsonb_to_recordset(files) AS f(sha256 text, size bigint);
    package := (pythia.engine_call('inspect', json_build_object('files', files, 'metadata', metadata)::text))[1]::jsonb;
    PERFORM pythia.take_model_file(f.sha256, f.size)
    FROM jsonb_to_recordset(package -> 'files') AS f(sha256 text, size bigint)
    WHERE f.sha256 NOT IN (SELECT g.sha256 FROM jsonb_to_recordset(files) AS g(sha256 text));
    RETURN package;
END $$;

-- Store a file that the engine has. Called by our own functions only.
CREATE OR REPLACE FUNCTION pythia.take_model_file(sha256 text, size bigint) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    piece_bytes CONSTANT integer := 1048576;
BEGIN
    IF EXISTS (SELECT FROM pythia.model_file f WHERE f.sha256 = take_model_file.sha256) THEN
        RETURN;
    END IF;
    FOR piece IN 0 .. (size - 1) / piece_bytes LOOP
        PERFORM pythia.put_model_chunk(sha256, piece, decode((pythia.engine_call(
            'read-chunk', json_build_object('sha256', sha256, 'no', piece)::text))[1], 'base64'));
    END LOOP;
END $$;

-- Refuse who may not load models, with the remedy: PostgreSQL would name the function that is called first.
CREATE OR REPLACE FUNCTION pythia.check_loader(role name DEFAULT current_user) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT has_function_privilege(role, 'pythia.put_model_chunk(text, integer, bytea)', 'EXECUTE') THEN
        RAISE EXCEPTION 'permission denied to load models'
            USING ERRCODE = '42501', HINT = format('CALL pythia.grant_create_model(%L);', role);
    END IF;
END $$;

-- Store bytes as the chunks of one file and return {"name", "sha256", "size"}.
CREATE OR REPLACE FUNCTION pythia.put_model_file(name text, data bytea) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    chunk CONSTANT integer := 1048576;
    hash  text := encode(sha256(data), 'hex');
BEGIN
    IF data IS NULL THEN
        RAISE EXCEPTION 'model data must not be null' USING ERRCODE = '22004';
    END IF;
    PERFORM pythia.put_model_chunk(hash, n, substring(data FROM n * chunk + 1 FOR chunk))
    FROM generate_series(0, (length(data) - 1) / chunk) AS n;
    RETURN jsonb_build_object('name', name, 'sha256', hash, 'size', length(data));
END $$;

-- Drop a model by dropping its views, as the caller: ownership and dependent objects are PostgreSQL's business.
CREATE OR REPLACE FUNCTION pythia.drop_model(name text, if_exists boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    relation pg_catalog.regclass;
    views    text;
BEGIN
    IF if_exists AND pg_catalog.to_regclass(name) IS NULL THEN
        RETURN;
    END IF;
    relation := pythia.model_relation(name);
    SELECT pg_catalog.string_agg(d.view::text, ', ') INTO views
    FROM (SELECT relation AS view UNION ALL SELECT v.view FROM pythia.detail_view v WHERE v.model OPERATOR(pg_catalog.=) relation) AS d;
    EXECUTE pg_catalog.format('DROP VIEW %s', views);
    PERFORM pythia.remove_orphaned_models();
END $$;

-- Rename a model and its detail views, as the caller. It stays in its schema.
CREATE OR REPLACE FUNCTION pythia.rename_model(name text, new_name text) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    relation pg_catalog.regclass := pythia.model_relation(name);
    parts    text[] := pg_catalog.parse_ident(new_name);
    present  text := (SELECT c.relnamespace::pg_catalog.regnamespace::text
                      FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) relation);
BEGIN
    IF pg_catalog.cardinality(parts) OPERATOR(pg_catalog.>) 1
       AND (pg_catalog.cardinality(parts) OPERATOR(pg_catalog.>) 2 OR pg_catalog.quote_ident(parts[1]) OPERATOR(pg_catalog.<>) present) THEN
        RAISE EXCEPTION 'invalid model name: "%"', new_name
            USING ERRCODE = '42602', DETAIL = 'A renamed model stays in its schema.';
    END IF;
    PERFORM pythia.check_new_model((pg_catalog.parse_ident(present))[1], parts[pg_catalog.cardinality(parts)]);
    EXECUTE pg_catalog.format('ALTER VIEW %s RENAME TO %I', relation, parts[pg_catalog.cardinality(parts)]);
    PERFORM pythia.rename_detail_views(relation);
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
    IF path IS NULL OR path NOT LIKE '/%' THEN
        RAISE EXCEPTION 'directory path "%" is not absolute', path
            USING ERRCODE = '22023', HINT = 'Write the path of a folder on the server, such as /srv/models.';
    END IF;
    INSERT INTO pythia.directory AS d VALUES (lower(name), path, readers)
    ON CONFLICT ON CONSTRAINT directory_pkey DO UPDATE SET path = excluded.path, readers = excluded.readers;
END $$;
COMMENT ON PROCEDURE pythia.create_directory(text, text, regrole[]) IS
    'Name a folder of the server that load_onnx_model may read, and the roles that may use it.';

CREATE OR REPLACE FUNCTION pythia.check_directory_reader(directory text) RETURNS void
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    readers regrole[] := (SELECT d.readers FROM pythia.directory d WHERE d.name = lower(directory));
BEGIN
    IF readers IS NOT NULL AND NOT EXISTS (
            SELECT FROM unnest(readers) AS r JOIN pg_roles c ON c.rolname = pythia.calling_role()
            WHERE NOT c.rolsuper AND pg_has_role(c.oid, r, 'USAGE')) THEN
        RAISE EXCEPTION 'permission denied for directory "%"', directory USING ERRCODE = '42501';
    END IF;
END $$;

CREATE OR REPLACE FUNCTION pythia.directory_path(directory text, file_name text) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    folder text := (SELECT d.path FROM pythia.directory d WHERE d.name = lower(directory));
BEGIN
    IF folder IS NULL THEN
        RAISE EXCEPTION 'directory "%" does not exist', directory
            USING ERRCODE = '42704', HINT = format('CALL pythia.create_directory(%L, ''/path/on/the/server'');', lower(directory));
    END IF;
    IF file_name IS NULL THEN
        RAISE EXCEPTION 'file name must not be null' USING ERRCODE = '22004';
    END IF;
    IF file_name ~ '(^|/)\.\.(/|$)' OR file_name LIKE '/%' THEN
        RAISE EXCEPTION 'file name "%" leaves its directory', file_name USING ERRCODE = '22023';
    END IF;
    RETURN folder || '/' || file_name;
END $$;

-- Let a role load models.
CREATE OR REPLACE PROCEDURE pythia.grant_create_model(role regrole)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION pythia.put_model_chunk, pythia.put_model_file, pythia.inspect_files, pythia.register_model, pythia.name_model TO %s', role);
END $$;
COMMENT ON PROCEDURE pythia.grant_create_model(regrole) IS 'Let a role load models; needs the right to grant on the functions of schema pythia.';

CREATE OR REPLACE PROCEDURE pythia.revoke_create_model(role regrole)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('REVOKE EXECUTE ON FUNCTION pythia.put_model_chunk, pythia.put_model_file, pythia.inspect_files, pythia.register_model, pythia.name_model FROM %s', role);
END $$;
COMMENT ON PROCEDURE pythia.revoke_create_model(regrole) IS 'Take back what pythia.grant_create_model gave.';
