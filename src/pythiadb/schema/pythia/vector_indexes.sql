-- Definitions of vector indexes. What they may be says vector_checks.sql, what is called vector_commands.sql.
--
-- A definition is a row of pythia.vector_index, written through the view pythia.owned_vector_index, which lets a role write
-- what belongs to its own tables: who asks is current_user in the view's condition, and nothing else would do, as a superuser's
-- ANALYZE runs other people's functions. Triggers on the table below check every row, make the journal and start the build:
-- the engine's keeper builds what has status BUILDING, once it is committed.

-- The rows' triggers -------------------------------------------------------------------------------------------------------

-- Check a definition, and fill in what follows from the table.
CREATE OR REPLACE FUNCTION pythia.complete_vector_index() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key record;
    a   pg_attribute;
BEGIN
    PERFORM pythia.check_indexed_table(NEW.relation);
    a := pythia.table_column(NEW.relation, NEW.column_name);
    SELECT v.type, coalesce(v.dimensions, NEW.dimensions) INTO NEW.vector_type, NEW.dimensions FROM pythia.vector_column_type(a) AS v;
    IF NEW.vector_type IS NULL THEN
        RAISE EXCEPTION 'column "%" has type %, which is not a vector type', NEW.column_name, format_type(a.atttypid, a.atttypmod)
            USING ERRCODE = '42804', HINT = 'Vector types are vector, halfvec, sparsevec, bit and varbit.';
    END IF;
    PERFORM pythia.check_table_key(NEW.relation);
    SELECT * INTO key FROM pythia.table_key(NEW.relation);
    NEW.key_column := key.name;
    NEW.key_type := key.family;
    NEW.namespace := (SELECT c.relnamespace FROM pg_class c WHERE c.oid = NEW.relation);
    NEW.include_columns := coalesce(NEW.include_columns, '{}');
    NEW.organization := coalesce(pythia.vector_organization(NEW.organization), pythia.implied_organization(NEW.parameters));
    NEW.distance := pythia.vector_index_metric(NEW.distance, NEW.vector_type);
    NEW.parameters := pythia.vector_index_parameters(NEW.parameters, NEW.organization);
    NEW.target_accuracy := coalesce(NEW.target_accuracy, 90);
    NEW.parallel := coalesce(NEW.parallel, 1);
    NEW.status := 'BUILDING';
    NEW.error := NULL;
    NEW.error_code := NULL;
    NEW.progress := NULL;
    PERFORM pythia.check_vector_index_numbers(NEW);
    PERFORM pythia.check_include_columns(NEW);
    PERFORM pythia.remove_orphaned_vector_indexes();
    PERFORM pythia.check_vector_index_name(NEW);
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION pythia.begin_vector_index() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pythia.define_vector_index_objects(NEW.id);  -- from here on others' writes wait
    IF NEW.dimensions IS NULL THEN
        UPDATE pythia.vector_index i SET dimensions = pythia.dimensions_of_a_row(i) WHERE i.id = NEW.id;
    END IF;
    RETURN NULL;
END $$;

-- A version of another distance must not answer any more.
CREATE OR REPLACE FUNCTION pythia.begin_vector_rebuild() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF OLD.distance <> NEW.distance THEN
        DELETE FROM pythia.vector_index_version v WHERE v.index_id = NEW.id;
    END IF;
    PERFORM pythia.define_vector_index_objects(NEW.id);
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION pythia.end_vector_index() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pythia.remove_vector_journal(OLD.id, OLD.relation);
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER vector_index_complete BEFORE INSERT OR UPDATE OF requested_at ON pythia.vector_index
FOR EACH ROW EXECUTE FUNCTION pythia.complete_vector_index();
CREATE OR REPLACE TRIGGER vector_index_begin AFTER INSERT ON pythia.vector_index
FOR EACH ROW EXECUTE FUNCTION pythia.begin_vector_index();
CREATE OR REPLACE TRIGGER vector_index_rebuild AFTER UPDATE OF requested_at ON pythia.vector_index
FOR EACH ROW EXECUTE FUNCTION pythia.begin_vector_rebuild();
CREATE OR REPLACE TRIGGER vector_index_end AFTER DELETE ON pythia.vector_index
FOR EACH ROW EXECUTE FUNCTION pythia.end_vector_index();

-- Journal, triggers and search functions of an index, made or brought up to date.
CREATE OR REPLACE FUNCTION pythia.define_vector_index_objects(index_id integer) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pythia.define_vector_journal(index_id);
    UPDATE pythia.vector_index i SET journal_state = pythia.journal_state(i) WHERE i.id = index_id;
    IF to_regprocedure('pythia.define_vector_search(integer)') IS NOT NULL THEN
        PERFORM pythia.define_vector_search(index_id);
        PERFORM pythia.define_vector_many(index_id);
    END IF;
END $$;

-- Names, as the caller ------------------------------------------------------------------------------------------------------

-- A table by its name as in SQL text, under the caller's search_path.
CREATE OR REPLACE FUNCTION pythia.table_relation(name text) RETURNS regclass
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    relation pg_catalog.regclass := pg_catalog.to_regclass(name);
BEGIN
    IF relation IS NULL THEN
        RAISE EXCEPTION 'relation "%" does not exist', name USING ERRCODE = '42P01';
    END IF;
    RETURN relation;
END $$;

-- The id of a vector index by its name as in SQL text, under the caller's search_path; NULL if it may be missing and is.
CREATE OR REPLACE FUNCTION pythia.vector_index_id(index_name text, if_exists boolean DEFAULT false) RETURNS integer
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    found integer := pythia.find_vector_index(index_name, pg_catalog.current_schemas(true));
BEGIN
    IF found IS NULL AND NOT if_exists THEN
        RAISE EXCEPTION 'vector index "%" does not exist', index_name
            USING ERRCODE = '42704', HINT = 'The vector indexes: SELECT owner, index_name FROM pythia.v$vector_index;';
    END IF;
    RETURN found;
END $$;

CREATE OR REPLACE FUNCTION pythia.find_vector_index(index_name text, search_path name[]) RETURNS integer
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parts text[] := parse_ident(index_name);
BEGIN
    RETURN (
        SELECT i.id FROM pythia.vector_index i
        JOIN pg_namespace n ON n.oid = i.namespace
        WHERE i.name = parts[cardinality(parts)]
          AND CASE cardinality(parts) WHEN 1 THEN n.nspname = ANY (search_path) WHEN 2 THEN n.nspname = parts[1] ELSE false END
        ORDER BY array_position(search_path, n.nspname) LIMIT 1);
END $$;

-- The column that a name means: written as it is, or else in lower case.
CREATE OR REPLACE FUNCTION pythia.column_identifier(relation regclass, name text) RETURNS text
LANGUAGE sql STABLE
RETURN coalesce((SELECT a.attname FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = name AND NOT a.attisdropped),
                (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = lower(name) AND NOT a.attisdropped), name);

-- Writing definitions, as the caller -----------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW pythia.owned_vector_index WITH (security_barrier = true) AS
SELECT id, name, relation, column_name, include_columns, organization, distance, target_accuracy, parameters, parallel,
       status, error, error_code, progress, requested_at
FROM pythia.vector_index i
WHERE EXISTS (SELECT FROM pg_class c WHERE c.oid = i.relation AND pg_has_role(c.relowner, 'USAGE'))
WITH CASCADED CHECK OPTION;
COMMENT ON VIEW pythia.owned_vector_index IS 'The vector indexes of the caller''s tables; they may be changed.';

-- Lock the table before the definition, as ALTER TABLE and the keeper come to them: the other way round, each would wait for the other.
CREATE OR REPLACE FUNCTION pythia.delete_vector_index() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', OLD.relation::regclass);
    DELETE FROM pythia.vector_index i WHERE i.id = OLD.id;
    RETURN CASE WHEN FOUND THEN OLD END;
END $$;

CREATE OR REPLACE TRIGGER owned_vector_index_delete INSTEAD OF DELETE ON pythia.owned_vector_index
FOR EACH ROW EXECUTE FUNCTION pythia.delete_vector_index();

-- Define a vector index, and do not wait: it is built when the transaction has committed. Returns its id.
CREATE OR REPLACE FUNCTION pythia.define_vector_index(
    index_name text, table_name text, vector_column text, include_columns text[] DEFAULT NULL, organization text DEFAULT NULL,
    distance text DEFAULT NULL, target_accuracy integer DEFAULT 90, parameters jsonb DEFAULT '{}', parallel integer DEFAULT 1)
RETURNS integer
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    RETURN pythia.insert_vector_index(
        index_name, pythia.table_relation(table_name), vector_column, include_columns, organization, distance, target_accuracy,
        parameters, parallel);
END $$;
COMMENT ON FUNCTION pythia.define_vector_index(text, text, text, text[], text, text, integer, jsonb, integer) IS
    'Define a vector index that the engine builds after the commit; see pythia.create_vector_index, which waits.';

CREATE OR REPLACE FUNCTION pythia.insert_vector_index(
    index_name text, relation regclass, vector_column text, include_columns text[], organization text, distance text,
    target_accuracy integer, parameters jsonb, parallel integer)
RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c      pg_class := (SELECT k FROM pg_class k WHERE k.oid = relation);
    parts  text[] := parse_ident(index_name);
    new_id integer;
BEGIN
    IF NOT pg_has_role(c.relowner, 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of table %', c.relname USING ERRCODE = '42501';
    END IF;
    IF NOT has_schema_privilege(c.relnamespace, 'CREATE') THEN
        RAISE EXCEPTION 'permission denied for schema %', c.relnamespace::regnamespace USING ERRCODE = '42501';
    END IF;
    PERFORM pythia.check_new_index_name(parts, c.relnamespace);
    INSERT INTO pythia.owned_vector_index AS o
        (name, relation, column_name, include_columns, organization, distance, target_accuracy, parameters, parallel)
    VALUES (parts[cardinality(parts)], insert_vector_index.relation, pythia.column_identifier(insert_vector_index.relation, vector_column),
            ARRAY(SELECT pythia.column_identifier(insert_vector_index.relation, u.c) FROM unnest(insert_vector_index.include_columns) WITH ORDINALITY AS u(c, n) ORDER BY u.n),
            insert_vector_index.organization, insert_vector_index.distance, insert_vector_index.target_accuracy,
            insert_vector_index.parameters, insert_vector_index.parallel)
    RETURNING o.id INTO new_id;
    RETURN new_id;
END $$;

CREATE OR REPLACE FUNCTION pythia.check_new_index_name(parts text[], namespace oid) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    present CONSTANT name := (SELECT n.nspname FROM pg_namespace n WHERE n.oid = namespace);
BEGIN
    IF cardinality(parts) > 2 OR parts[cardinality(parts)] = '' THEN
        RAISE EXCEPTION 'invalid name of a vector index: "%"', array_to_string(parts, '.') USING ERRCODE = '42602';
    END IF;
    IF octet_length(parts[cardinality(parts)]) > 63 THEN
        RAISE EXCEPTION 'name "%" of a vector index is too long', parts[cardinality(parts)]
            USING ERRCODE = '42622', DETAIL = 'It has at most 63 bytes.';
    END IF;
    IF cardinality(parts) = 2 AND parts[1] <> present THEN
        RAISE EXCEPTION 'cannot create a vector index in schema "%"', parts[1]
            USING ERRCODE = '0A000', DETAIL = format('An index lies in the schema of its table, which is "%s".', present),
                  HINT = 'Leave the schema out of its name.';
    END IF;
END $$;

-- Ask for another build. NULL leaves a property as it is; parameters are replaced as a whole, and fall away with a new organization.
CREATE OR REPLACE FUNCTION pythia.request_vector_rebuild(
    index_id integer, target_accuracy integer, organization text, distance text, parameters jsonb, parallel integer) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE pythia.owned_vector_index i SET
        target_accuracy = coalesce(request_vector_rebuild.target_accuracy, i.target_accuracy),
        organization = coalesce(request_vector_rebuild.organization, i.organization),
        distance = coalesce(request_vector_rebuild.distance, i.distance),
        parameters = coalesce(request_vector_rebuild.parameters,
            CASE WHEN pythia.vector_organization(request_vector_rebuild.organization) <> i.organization THEN '{}' ELSE i.parameters END),
        parallel = coalesce(request_vector_rebuild.parallel, i.parallel),
        requested_at = clock_timestamp()
    WHERE i.id = index_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'must be owner of the vector index' USING ERRCODE = '42501';
    END IF;
END $$;
