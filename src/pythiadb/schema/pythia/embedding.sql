-- Scoring with embedding models.

-- The embedding of NULL: that of the metadata's defaultOnNull, or NULL. Called by our own functions only.
CREATE OR REPLACE FUNCTION pythia.embedding_of_null(model regclass, attribute text) RETURNS @extschema:vector@.vector
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    stand_in text := pythia.default_on_null(model, attribute);
BEGIN
    RETURN CASE WHEN stand_in IS NOT NULL THEN pythia.vector_embedding(model, stand_in, attribute) END;
END $$;

CREATE OR REPLACE FUNCTION pythia.default_on_null(model regclass, attribute text) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    defaults jsonb := (SELECT m.spec -> 'default_on_null' FROM pythia.model m WHERE m.relation = default_on_null.model);
BEGIN
    IF defaults = '{}' THEN  -- of most models, and quick: a table may hold many NULLs
        RETURN NULL;
    END IF;
    RETURN (SELECT d.value FROM jsonb_each_text(defaults) AS d WHERE upper(d.key) = upper(attribute));
END $$;

CREATE OR REPLACE FUNCTION pythia.vector_embedding(model regclass, data text, attribute text DEFAULT 'DATA')
RETURNS @extschema:vector@.vector
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER COST 1000000 SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target record;
BEGIN
    IF data IS NULL OR model IS NULL OR attribute IS NULL THEN
        RETURN pythia.embedding_of_null(model, attribute);
    END IF;
    target := pythia.scoring_package(model, 'vector_embedding', attribute);
    IF target.as_text THEN
        RETURN (pythia.engine_call('embed', json_build_array(
            target.package, target.inmemory, 1, array[data])::text))[1]::@extschema:vector@.vector;
    END IF;
    RETURN pythia.score_one(model, 'vector_embedding', '[]', jsonb_build_object(attribute, data))::@extschema:vector@.vector;
END $$;
COMMENT ON FUNCTION pythia.vector_embedding(regclass, text, text) IS
    'The embedding of a text. NULL for NULL without a default. Needs SELECT on the model''s view.';

CREATE OR REPLACE FUNCTION pythia.vector_embedding(model regclass, data bytea, attribute text DEFAULT 'DATA')
RETURNS @extschema:vector@.vector
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER COST 1000000 SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target record;
BEGIN
    IF data IS NULL OR model IS NULL OR attribute IS NULL THEN
        RETURN pythia.embedding_of_null(model, attribute);
    END IF;
    target := pythia.scoring_package(model, 'vector_embedding', attribute);
    IF target.as_text THEN
        RAISE EXCEPTION 'model "%" embeds texts, not bytes', model
            USING ERRCODE = '42809', HINT = 'Convert the bytes: convert_from(data, ''UTF8'').';
    END IF;
    RETURN pythia.score_one(model, 'vector_embedding', '[]', jsonb_build_object(attribute, data))::@extschema:vector@.vector;
END $$;
COMMENT ON FUNCTION pythia.vector_embedding(regclass, bytea, text) IS
    'The embedding of an image. NULL for NULL without a default. Needs SELECT on the model''s view.';

-- Oracle converts what is no text by itself. A STABLE body is inlined whatever the type's own conversion is.
CREATE OR REPLACE FUNCTION pythia.vector_embedding(model regclass, data anyelement, attribute text DEFAULT 'DATA')
RETURNS @extschema:vector@.vector
LANGUAGE sql STABLE PARALLEL RESTRICTED
AS $$ SELECT pythia.vector_embedding(model, data::text, attribute) $$;
COMMENT ON FUNCTION pythia.vector_embedding(regclass, anyelement, text) IS
    'The embedding of a number, a time, or another value, as text.';

-- What a model of texts reads of a value: translated statements gather these. PostgreSQL puts the expression in the place of
-- the call; a cast alone would take the bytes of an image for their digits.
CREATE OR REPLACE FUNCTION pythia.text_input(data text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN data;

CREATE OR REPLACE FUNCTION pythia.text_input(data anyelement) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT data::text $$;

CREATE OR REPLACE FUNCTION pythia.text_input(data bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    RAISE EXCEPTION 'the model embeds texts, not bytes'
        USING ERRCODE = '42809', HINT = 'Convert the bytes: convert_from(data, ''UTF8'').';
END $$;

-- The same in arrays: one engine call for all inputs. Returns one row an input, in order; a NULL gives a NULL without a default.
-- total: how many inputs the whole statement will send, for progress displays.
CREATE OR REPLACE FUNCTION pythia.vector_embedding_batch(
    model regclass, inputs text[], total bigint DEFAULT NULL, attribute text DEFAULT 'DATA')
RETURNS TABLE (input text, embedding @extschema:vector@.vector)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER COST 1000000 ROWS 256 SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    name   text := coalesce(attribute, 'DATA');
    target record := pythia.scoring_package(model, 'vector_embedding', name);
    given  text[];
    lines  text[];
BEGIN
    IF array_ndims(inputs) > 1 THEN
        RAISE EXCEPTION 'inputs must be a one-dimensional array' USING ERRCODE = '2202E';
    END IF;
    IF target.as_text THEN
        given := coalesce(inputs, '{}');
        IF array_position(given, NULL) IS NOT NULL THEN
            given := array_replace(given, NULL, pythia.default_on_null(model, name));
        END IF;
        -- Not within the query: to estimate the rows of unnest() the planner would make the call, too.
        lines := pythia.engine_call('embed', json_build_array(
            target.package, target.inmemory, coalesce(total, cardinality(inputs)), given)::text);
        RETURN QUERY SELECT t.input, t.line::@extschema:vector@.vector FROM unnest(inputs, lines) AS t(input, line);
        RETURN;
    END IF;
    RETURN QUERY
    SELECT u.given, u.output::@extschema:vector@.vector
    FROM (SELECT array_agg(CASE WHEN i IS NOT NULL THEN jsonb_build_object(name, i)::text END ORDER BY n) AS objects
          FROM unnest(inputs) WITH ORDINALITY AS e(i, n)) AS a,
         ROWS FROM (unnest(inputs), pythia.scoring_batch(model, 'vector_embedding', '[]', a.objects, total)) AS u(given, object, output);
END $$;
COMMENT ON FUNCTION pythia.vector_embedding_batch(regclass, text[], bigint, text) IS
    'The embeddings of an array of texts by one engine call.';

-- For generated columns and expression indexes, which take immutable functions only. The promise holds as long as the
-- model under the name stays the same; load a changed model under a new name.
CREATE OR REPLACE FUNCTION pythia.vector_embedding_immutable(model regclass, data text, attribute text DEFAULT 'DATA')
RETURNS @extschema:vector@.vector
LANGUAGE plpgsql IMMUTABLE PARALLEL RESTRICTED COST 1000000 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN pythia.vector_embedding(model, data, attribute);
END $$;

CREATE OR REPLACE FUNCTION pythia.vector_embedding_immutable(model regclass, data bytea, attribute text DEFAULT 'DATA')
RETURNS @extschema:vector@.vector
LANGUAGE plpgsql IMMUTABLE PARALLEL RESTRICTED COST 1000000 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN pythia.vector_embedding(model, data, attribute);
END $$;
