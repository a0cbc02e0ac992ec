-- Oracle's package DBMS_VECTOR: the procedures about models.

CREATE OR REPLACE PROCEDURE dbms_vector.load_onnx_model(
    model_name text, model_data bytea,
    metadata jsonb DEFAULT '{"function":"embedding","embeddingOutput":"embedding","input":{"input":["DATA"]}}')
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pythia.create_model_from_onnx(model_name, model_data, metadata);
END $$;
COMMENT ON PROCEDURE dbms_vector.load_onnx_model(text, bytea, jsonb) IS 'Load an ONNX model out of a byte string.';

CREATE OR REPLACE PROCEDURE dbms_vector.load_onnx_model(
    directory text, file_name text, model_name text,
    metadata jsonb DEFAULT '{"function":"embedding","embeddingOutput":"embedding","input":{"input":["DATA"]}}')
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pythia.create_model_from_onnx(model_name, pythia.read_directory_file(directory, file_name), metadata);
END $$;
COMMENT ON PROCEDURE dbms_vector.load_onnx_model(text, text, text, jsonb) IS
    'Load an ONNX file of a directory on the server; see pythia.create_directory.';

CREATE OR REPLACE PROCEDURE dbms_vector.drop_onnx_model(model_name text, force boolean DEFAULT false)
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pythia.drop_model(model_name, force);
END $$;
COMMENT ON PROCEDURE dbms_vector.drop_onnx_model(text, boolean) IS 'Drop a model; with force it may also be missing.';
