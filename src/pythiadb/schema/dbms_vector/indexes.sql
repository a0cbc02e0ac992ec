-- Oracle's package DBMS_VECTOR: the procedures about indexes.

CREATE OR REPLACE PROCEDURE dbms_vector.create_index(
    idx_name text, table_name text, idx_vector_col text, idx_include_cols text DEFAULT NULL,
    idx_partitioning_scheme text DEFAULT 'GLOBAL', idx_organization text DEFAULT NULL, idx_distance_metric text DEFAULT 'COSINE',
    idx_accuracy numeric DEFAULT 90, idx_parameters jsonb DEFAULT '{}', idx_parallel_creation numeric DEFAULT 1,
    idx_quantization_type text DEFAULT 'NONE', idx_compression_ratio numeric DEFAULT NULL, idx_distribute_parameters text DEFAULT NULL,
    idx_duplicate_parameters text DEFAULT NULL, idx_online_build boolean DEFAULT false)
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pythia.check_index_options(
        idx_partitioning_scheme, idx_quantization_type, idx_compression_ratio, idx_distribute_parameters, idx_duplicate_parameters);
    CALL pythia.create_vector_index(
        idx_name, table_name, idx_vector_col, pythia.column_list(idx_include_cols), idx_organization, idx_distance_metric,
        pythia.whole_number('idx_accuracy', idx_accuracy), idx_parameters, pythia.whole_number('idx_parallel_creation', idx_parallel_creation));
END $$;
COMMENT ON PROCEDURE dbms_vector.create_index(text, text, text, text, text, text, text, numeric, jsonb, numeric, text, numeric, text, text, boolean) IS
    'Create a vector index and wait until it is built. Building never blocks writers, so idx_online_build changes nothing.';

CREATE OR REPLACE PROCEDURE dbms_vector.rebuild_index(
    idx_name text, table_name text DEFAULT NULL, idx_vector_col text DEFAULT NULL, idx_include_cols text DEFAULT NULL,
    idx_partitioning_scheme text DEFAULT NULL, idx_organization text DEFAULT NULL, idx_distance_metric text DEFAULT NULL,
    idx_accuracy numeric DEFAULT NULL, idx_parameters jsonb DEFAULT NULL, idx_parallel_creation numeric DEFAULT NULL,
    idx_rebuild_mode text DEFAULT NULL, idx_quantization_type text DEFAULT NULL, idx_compression_ratio numeric DEFAULT NULL,
    idx_distribute_parameters text DEFAULT NULL, idx_duplicate_parameters text DEFAULT NULL, idx_online_build boolean DEFAULT NULL,
    idx_owner text DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    known integer;
BEGIN
    PERFORM pythia.check_index_options(
        idx_partitioning_scheme, idx_quantization_type, idx_compression_ratio, idx_distribute_parameters, idx_duplicate_parameters);
    known := pythia.owned_index_id(idx_owner, idx_name);
    PERFORM pythia.check_rebuilt_index(
        known, CASE WHEN table_name IS NOT NULL THEN pythia.owned_relation(idx_owner, table_name) END, idx_vector_col,
        pythia.column_list(idx_include_cols));
    CALL pythia.rebuild_vector_index(
        pythia.qualified_index_name(known), pythia.whole_number('idx_accuracy', idx_accuracy), idx_organization, idx_distance_metric,
        idx_parameters, pythia.whole_number('idx_parallel_creation', idx_parallel_creation));
END $$;
COMMENT ON PROCEDURE dbms_vector.rebuild_index(text, text, text, text, text, text, text, numeric, jsonb, numeric, text, text, numeric, text, text, boolean, text) IS
    'Build a vector index anew and wait; what is NULL stays as it is. Table and columns cannot change.';

CREATE OR REPLACE PROCEDURE dbms_vector.get_index_status(owner_name text, index_name text)
LANGUAGE plpgsql
AS $$
DECLARE
    line text;
BEGIN
    FOR line IN SELECT l FROM pythia.index_status_lines(pythia.owned_index_id(owner_name, index_name)) AS l LOOP
        RAISE NOTICE '%', line;
    END LOOP;
END $$;
COMMENT ON PROCEDURE dbms_vector.get_index_status(text, text) IS 'Say, in notices, how far the build of a vector index is.';

-- Every version of an index is on disk when it becomes visible, so there is nothing to write; the call says whether there is one.
CREATE OR REPLACE PROCEDURE dbms_vector.create_checkpoint(idx_owner text, idx_name text)
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pythia.check_index_version(pythia.owned_index_id(idx_owner, idx_name), idx_name);
END $$;
COMMENT ON PROCEDURE dbms_vector.create_checkpoint(text, text) IS
    'Check that a vector index has a version on disk, as it always has once it is built; nothing needs to be written.';

CREATE OR REPLACE PROCEDURE dbms_vector.enable_checkpoint(owner_name text, index_name text DEFAULT NULL)
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pythia.owned_index_id(owner_name, index_name) WHERE index_name IS NOT NULL;
END $$;
COMMENT ON PROCEDURE dbms_vector.enable_checkpoint(text, text) IS 'Changes nothing: vector indexes are always on disk.';

CREATE OR REPLACE PROCEDURE dbms_vector.disable_checkpoint(owner_name text, index_name text DEFAULT NULL)
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pythia.owned_index_id(owner_name, index_name) WHERE index_name IS NOT NULL;
    RAISE NOTICE 'vector indexes are always on disk; their files serve for starting as well as for searching';
END $$;
COMMENT ON PROCEDURE dbms_vector.disable_checkpoint(text, text) IS 'Says that vector indexes are always on disk; changes nothing.';

-- Oracle writes its advice to the screen too.
CREATE OR REPLACE PROCEDURE dbms_vector.index_vector_memory_advisor(
    index_type text, num_vectors numeric, dim_count numeric, dim_type text, parameter_json jsonb, OUT response_json text)
LANGUAGE plpgsql
AS $$
DECLARE
    advice CONSTANT jsonb := pythia.vector_memory_advice(
        index_type, pythia.vector_format_contents(num_vectors, dim_count, dim_type), parameter_json);
BEGIN
    RAISE NOTICE 'Suggested vector memory pool size: % bytes', advice ->> 'needed';
    response_json := advice;
END $$;
COMMENT ON PROCEDURE dbms_vector.index_vector_memory_advisor(text, numeric, numeric, text, jsonb) IS
    'Say how many bytes an index over so many vectors would take.';

CREATE OR REPLACE PROCEDURE dbms_vector.index_vector_memory_advisor(
    table_owner text, table_name text, column_name text, index_type text, parameter_json jsonb, OUT response_json text)
LANGUAGE plpgsql
AS $$
DECLARE
    advice CONSTANT jsonb := pythia.vector_memory_advice(
        index_type, pythia.vector_column_contents(pythia.owned_relation(table_owner, table_name), column_name), parameter_json);
BEGIN
    RAISE NOTICE 'Suggested vector memory pool size: % bytes', advice ->> 'needed';
    response_json := advice;
END $$;
COMMENT ON PROCEDURE dbms_vector.index_vector_memory_advisor(text, text, text, text, jsonb) IS
    'Say how many bytes an index over a column of a table would take.';
