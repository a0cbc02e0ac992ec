-- Oracle's package DBMS_VECTOR: the procedures about models.

CREATE OR REPLACE PROCEDURE dbms_vector.load_onnx_model(
    model_name text, model_data bytea,
    metadata jsonb DEFAULT '{"function":"embedding","embeddingOutput":"embedding","input":{"input":["DATA"]}}')
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pythia.check_loader();
    PERFORM pythia.create_model_from_files(
        model_name, pg_catalog.jsonb_build_array(pythia.put_model_file('model.onnx', model_data)), metadata);
END $$;
COMMENT ON PROCEDURE dbms_vector.load_onnx_model(text, bytea, jsonb) IS 'Load an ONNX model out of a byte string.';

-- Which files hold a graph's external data, and where in them each tensor lies, says the graph itself; Oracle's JSON file,
-- which says the same, only has to be there and readable if it is named.
CREATE OR REPLACE PROCEDURE dbms_vector.load_onnx_model(
    directory text, file_name text, model_name text,
    metadata jsonb DEFAULT '{"function":"embedding","embeddingOutput":"embedding","input":{"input":["DATA"]}}',
    external_data_file_name text DEFAULT NULL)
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pythia.create_model_from_files(
        model_name, pythia.fetch_directory_file(directory, file_name, external_data_file_name), metadata);
END $$;
COMMENT ON PROCEDURE dbms_vector.load_onnx_model(text, text, text, jsonb, text) IS
    'Load an ONNX file of a directory on the server, with the external data beside it; see pythia.create_directory.';

CREATE OR REPLACE PROCEDURE dbms_vector.load_onnx_model_cloud(
    model_name text, credential text, uri text,
    metadata jsonb DEFAULT '{"function":"embedding","embeddingOutput":"embedding","input":{"input":["DATA"]}}')
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pythia.create_model_from_files(model_name, pythia.fetch_uri(uri, credential), metadata);
END $$;
COMMENT ON PROCEDURE dbms_vector.load_onnx_model_cloud(text, text, text, jsonb) IS
    'Load an ONNX file from an https, s3 or file URI; see pythia.grant_cloud_access.';

CREATE OR REPLACE PROCEDURE dbms_vector.import_onnx_model(
    model_name text, model_data bytea,
    metadata jsonb DEFAULT '{"function":"embedding","embeddingOutput":"embedding","input":{"input":["DATA"]}}')
LANGUAGE plpgsql
AS $$
BEGIN
    CALL dbms_vector.load_onnx_model(model_name, model_data, metadata);
END $$;
COMMENT ON PROCEDURE dbms_vector.import_onnx_model(text, bytea, jsonb) IS 'The older name of load_onnx_model.';

CREATE OR REPLACE PROCEDURE dbms_vector.drop_onnx_model(model_name text, force boolean DEFAULT false)
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pythia.drop_model(model_name, force);
END $$;
COMMENT ON PROCEDURE dbms_vector.drop_onnx_model(text, boolean) IS 'Drop a model; with force it may also be missing.';

CREATE OR REPLACE PROCEDURE dbms_vector.inmemory_onnx_model(model_name text, enable boolean DEFAULT true)
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pythia.set_inmemory(pythia.model_relation(model_name), enable);
END $$;
COMMENT ON PROCEDURE dbms_vector.inmemory_onnx_model(text, boolean) IS
    'Let all sessions share one copy of the weights of a model with external data, or stop that.';

CREATE OR REPLACE PROCEDURE dbms_vector.create_credential(credential_name text, params jsonb)
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pythia.create_credential(credential_name, params);
END $$;
COMMENT ON PROCEDURE dbms_vector.create_credential(text, jsonb) IS
    'Keep secrets for load_onnx_model_cloud under a name of the caller''s.';

CREATE OR REPLACE PROCEDURE dbms_vector.drop_credential(credential_name text)
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pythia.drop_credential(credential_name);
END $$;
COMMENT ON PROCEDURE dbms_vector.drop_credential(text) IS 'Drop a credential of the caller''s.';
