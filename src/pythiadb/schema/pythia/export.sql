-- Models out of the database again.

-- The pieces of a model's file, by number from 0; NULL after the last. For owners of the model: who may only score with it
-- does not get its weights.
CREATE OR REPLACE FUNCTION pythia.get_model_chunk(model regclass, file_name text, no integer) RETURNS bytea
LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT pythia.is_model(model) THEN
        RAISE EXCEPTION '"%" is not a model', model USING ERRCODE = '42809';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = model AND pg_has_role(pythia.calling_role(), c.relowner, 'USAGE')) THEN
        RAISE EXCEPTION 'must be owner of model %', model USING ERRCODE = '42501';
    END IF;
    RETURN (
        SELECT c.data
        FROM pythia.model m
        JOIN pythia.model_file f ON f.model_id = m.id AND f.name = get_model_chunk.file_name
        JOIN pythia.model_chunk c ON c.sha256 = f.sha256 AND c.no = get_model_chunk.no
        WHERE m.relation = get_model_chunk.model);
END $$;
COMMENT ON FUNCTION pythia.get_model_chunk(regclass, text, integer) IS
    'A piece of a model''s file, up to 1 MiB; NULL after the last. Needs ownership of the model. pythia model export uses it.';
