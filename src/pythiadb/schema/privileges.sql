-- Who may do what: the one place that grants. Runs last, at every install and upgrade.

REVOKE ALL ON ALL TABLES IN SCHEMA pythia FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA pythia FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA dbms_vector, dbms_data_mining FROM PUBLIC;

GRANT USAGE ON SCHEMA pythia, dbms_vector, dbms_data_mining, dbms_output TO PUBLIC;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA dbms_vector, dbms_data_mining TO PUBLIC;
REVOKE ALL ON PROCEDURE dbms_vector.load_onnx_model_cloud FROM PUBLIC;  -- pythia.grant_cloud_access

-- Views that show the caller what is his, or what he may use.
GRANT SELECT ON
    pythia.schema_version, pythia.model, pythia.model_details,
    pythia.user_mining_models, pythia.user_mining_model_attributes, pythia.user_mining_model_views, pythia.user_mining_model_settings,
    pythia.all_mining_models, pythia.all_mining_model_attributes, pythia.all_mining_model_views, pythia.all_mining_model_settings,
    pythia.v$im_onnx_model, pythia.v$im_onnx_segment
TO PUBLIC;
GRANT SELECT ON
    pythia.dba_mining_models, pythia.dba_mining_model_attributes, pythia.dba_mining_model_views, pythia.dba_mining_model_settings
TO pg_monitor;
GRANT SELECT, UPDATE (inmemory) ON pythia.owned_model TO PUBLIC;
GRANT SELECT (credential_name, handle), DELETE ON pythia.user_credentials TO PUBLIC;  -- INSERT: pythia.grant_cloud_access

-- Scoring checks the model's own privilege.
GRANT EXECUTE ON FUNCTION
    pythia.vector_embedding(regclass, text, text), pythia.vector_embedding(regclass, bytea, text), pythia.vector_embedding_batch,
    pythia.vector_embedding_immutable(regclass, text, text), pythia.vector_embedding_immutable(regclass, bytea, text),
    pythia.prediction, pythia.prediction_probability,
    pythia.prediction_set(regclass, jsonb, integer, double precision), pythia.prediction_set(regclass, jsonb, integer, double precision, anyelement),
    pythia.cluster_id, pythia.cluster_probability, pythia.cluster_distance, pythia.cluster_set,
    pythia.scoring_batch, pythia.scoring_matrix,
    pythia.shared_models, pythia.engine_ping
TO PUBLIC;

-- Vector arithmetic is nobody's secret.
GRANT EXECUTE ON FUNCTION
    pythia.vector_distance(@extschema:vector@.vector, @extschema:vector@.vector, text),
    pythia.vector_distance(@extschema:vector@.vector, @extschema:vector@.vector),
    pythia.vector_distance(bit, bit, text), pythia.vector_distance(bit, bit),
    pythia.vector_distance(@extschema:vector@.sparsevec, @extschema:vector@.sparsevec, text),
    pythia.vector_distance(@extschema:vector@.sparsevec, @extschema:vector@.sparsevec),
    pythia.wrong_metric, pythia.hamming_distance, pythia.check_dimensions,
    pythia.to_vector(@extschema:vector@.vector, integer), pythia.to_vector(text, integer), pythia.to_vector(jsonb, integer),
    pythia.to_binary_vector, pythia.to_sparse_vector(text, integer), pythia.to_sparse_vector(@extschema:vector@.vector, integer),
    pythia.from_vector(@extschema:vector@.vector), pythia.from_vector(bit), pythia.from_vector(@extschema:vector@.sparsevec),
    pythia.from_vector_sparse,
    pythia.vector_dims(@extschema:vector@.vector), pythia.vector_dims(bit), pythia.vector_dims(@extschema:vector@.sparsevec),
    pythia.vector_norm, pythia.vector_dimension_format(@extschema:vector@.vector),
    pythia.vector_dimension_format(bit), pythia.vector_dimension_format(@extschema:vector@.sparsevec)
TO PUBLIC;

-- Dropping, naming and switching run as the caller, who needs the view's ownership; loading needs pythia.grant_create_model.
GRANT EXECUTE ON FUNCTION
    pythia.model_name, pythia.model_relation, pythia.is_model, pythia.check_new_model,
    pythia.create_model, pythia.create_model_from_files, pythia.drop_model, pythia.rename_model, pythia.remove_orphaned_models,
    pythia.model_signature, pythia.model_parameters, pythia.oracle_name,
    pythia.detail_views, pythia.detail_view_name, pythia.create_detail_views, pythia.rename_detail_views,
    pythia.exchange_views, pythia.exchange_models, pythia.set_inmemory, pythia.populate_model
TO PUBLIC;
GRANT EXECUTE ON PROCEDURE pythia.switch_model TO PUBLIC;

-- Files: these ask for the right by calling a function that only its holders may execute, or check the readers of a directory.
GRANT EXECUTE ON FUNCTION
    pythia.read_directory_file, pythia.read_shared_directory_file,
    pythia.fetch_directory_file, pythia.fetch_shared_directory_file, pythia.fetch_uri,
    pythia.create_credential, pythia.drop_credential
TO PUBLIC;

-- Folders of the server are for those who may read its files anyway.
GRANT EXECUTE ON FUNCTION
    pythia.read_any_directory_file, pythia.fetch_any_directory_file, pythia.fetch_server_file
TO pg_read_server_files;
GRANT EXECUTE ON PROCEDURE pythia.create_directory TO pg_read_server_files;

-- Whoever may load models may call what loading has needed since an upgrade.
DO $$
DECLARE
    loader regrole;
BEGIN
    FOR loader IN
        SELECT a.grantee FROM pg_proc p, aclexplode(p.proacl) AS a
        WHERE p.oid = 'pythia.name_model(bigint, regclass)'::regprocedure AND a.grantee NOT IN (0, p.proowner)
    LOOP
        CALL pythia.grant_create_model(loader);
    END LOOP;
END $$;
