-- Who may do what: the one place that grants. Runs last, at every install and upgrade.

REVOKE ALL ON ALL TABLES IN SCHEMA pythia FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA pythia FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA dbms_vector FROM PUBLIC;

GRANT USAGE ON SCHEMA pythia, dbms_vector TO PUBLIC;
GRANT SELECT ON pythia.schema_version, pythia.model, pythia.model_details, pythia.user_mining_models TO PUBLIC;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA dbms_vector TO PUBLIC;

-- Scoring checks the model's own privilege.
GRANT EXECUTE ON FUNCTION
    pythia.vector_embedding, pythia.vector_embedding_batch, pythia.vector_embedding_immutable,
    pythia.engine_ping
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

-- Dropping and naming run as the caller, who needs the view's ownership; loading needs pythia.grant_create_model.
GRANT EXECUTE ON FUNCTION
    pythia.model_name, pythia.create_model, pythia.create_model_from_onnx, pythia.drop_model, pythia.is_model,
    pythia.remove_orphaned_models
TO PUBLIC;
GRANT EXECUTE ON FUNCTION pythia.read_directory_file, pythia.read_shared_directory_file TO PUBLIC;

-- Folders of the server are for those who may read its files anyway.
GRANT EXECUTE ON FUNCTION pythia.read_any_directory_file TO pg_read_server_files;
GRANT EXECUTE ON PROCEDURE pythia.create_directory TO pg_read_server_files;
