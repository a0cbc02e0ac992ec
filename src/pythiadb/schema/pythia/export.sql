-- Models out of the database again, for their owners: who may only score with a model does not get its weights.
--
-- Whose files may be read is asked in a view, where current_user is the role whose privileges count (see switching.sql).

CREATE OR REPLACE VIEW pythia.owned_model_chunk WITH (security_barrier = true) AS
SELECT m.relation, f.name AS file_name, c.no, c.data
FROM pythia.model m
JOIN pg_class v ON v.oid = m.relation
JOIN pythia.model_file f ON f.model_id = m.id
JOIN pythia.model_chunk c ON c.sha256 = f.sha256
WHERE pg_has_role(v.relowner, 'USAGE');
COMMENT ON VIEW pythia.owned_model_chunk IS 'The files, in pieces, of the models whose owner the caller is, or is a member of.';

CREATE OR REPLACE FUNCTION pythia.get_model_chunk(model regclass, file_name text, no integer) RETURNS bytea
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT pythia.is_model(model) THEN
        RAISE EXCEPTION '"%" is not a model', model USING ERRCODE = '42809';
    END IF;
    IF NOT EXISTS (SELECT FROM pythia.owned_model o WHERE o.relation = model) THEN
        RAISE EXCEPTION 'must be owner of model %', model USING ERRCODE = '42501';
    END IF;
    RETURN (SELECT c.data FROM pythia.owned_model_chunk c
            WHERE (c.relation, c.file_name, c.no) = (get_model_chunk.model, get_model_chunk.file_name, get_model_chunk.no));
END $$;
COMMENT ON FUNCTION pythia.get_model_chunk(regclass, text, integer) IS
    'A piece of a model''s file, up to 1 MiB; NULL after the last. Needs ownership of the model. pythia model export uses it.';
