-- Oracle's package DBMS_DATA_MINING: the procedures that apply to ONNX models.

CREATE OR REPLACE PROCEDURE dbms_data_mining.import_onnx_model(model_name text, model_data bytea, metadata jsonb)
LANGUAGE plpgsql
AS $$
BEGIN
    CALL dbms_vector.load_onnx_model(model_name, model_data, metadata);
END $$;
COMMENT ON PROCEDURE dbms_data_mining.import_onnx_model(text, bytea, jsonb) IS 'Load an ONNX model out of a byte string.';

CREATE OR REPLACE PROCEDURE dbms_data_mining.drop_model(model_name text, force boolean DEFAULT false)
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pythia.drop_model(model_name, force);
END $$;
COMMENT ON PROCEDURE dbms_data_mining.drop_model(text, boolean) IS 'Drop a model; with force it may also be missing.';

CREATE OR REPLACE PROCEDURE dbms_data_mining.rename_model(model_name text, new_model_name text)
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pythia.rename_model(model_name, new_model_name);
END $$;
COMMENT ON PROCEDURE dbms_data_mining.rename_model(text, text) IS 'Rename a model and its detail views.';

CREATE OR REPLACE PROCEDURE dbms_data_mining.inmemory_onnx_model(model_name text, enable boolean DEFAULT true)
LANGUAGE plpgsql
AS $$
BEGIN
    CALL dbms_vector.inmemory_onnx_model(model_name, enable);
END $$;
COMMENT ON PROCEDURE dbms_data_mining.inmemory_onnx_model(text, boolean) IS
    'Let all sessions share one copy of the weights of a model with external data, or stop that.';
