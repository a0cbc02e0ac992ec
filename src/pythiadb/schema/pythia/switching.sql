-- Changing what a model's name means and how the model runs, by its owner.
--
-- Whether the caller owns a model is asked where current_user is the role whose privileges count: in statements that run as
-- the caller, and in views. pythia.calling_role() would not do, as a superuser's ANALYZE runs other people's functions.

-- Switching ----------------------------------------------------------------------------------------------------------------

-- Exchange the models behind two names in one statement: grants, comments and dependent objects stay with the names. Other
-- sessions score with one or the other, never with none. A second call switches back.
CREATE OR REPLACE PROCEDURE pythia.switch_model(name text, other_name text)
LANGUAGE plpgsql
AS $$
DECLARE
    first  pg_catalog.regclass := pythia.model_relation(name);
    second pg_catalog.regclass := pythia.model_relation(other_name);
BEGIN
    PERFORM pythia.exchange_views(first, second);
    PERFORM pythia.exchange_models(first, second);
END $$;
COMMENT ON PROCEDURE pythia.switch_model(text, text) IS
    'Exchange the models behind two names of the same owner: a new version for an old one, and back.';

-- As the caller: only a view's owner can replace it.
CREATE OR REPLACE FUNCTION pythia.exchange_views(first regclass, second regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    view   record;
    detail record;
BEGIN
    IF first = second THEN
        RAISE EXCEPTION 'model "%" cannot be exchanged with itself', first USING ERRCODE = '22023';
    END IF;
    PERFORM pg_advisory_xact_lock('pythia.model'::regclass::oid::bigint);  -- one switch at a time
    FOR view IN
        SELECT v.relation, o.id
        FROM (VALUES (first, second), (second, first)) AS v(relation, other) JOIN pythia.model o ON o.relation = v.other
    LOOP
        EXECUTE format('CREATE OR REPLACE VIEW %s AS SELECT * FROM pythia.model_details WHERE id = %s', view.relation, view.id);
        FOR detail IN SELECT d.view, d.kind FROM pythia.detail_view d WHERE d.model = view.relation LOOP
            PERFORM pythia.write_detail_view(detail.view::text, detail.kind, view.id);
        END LOOP;
    END LOOP;
END $$;

-- Let the rows follow the views, which have to show each other's models already: that proves the ownership of both.
CREATE OR REPLACE FUNCTION pythia.exchange_models(first regclass, second regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a pythia.model := (SELECT m FROM pythia.model m WHERE m.relation = first);
    b pythia.model := (SELECT m FROM pythia.model m WHERE m.relation = second);
BEGIN
    IF (pythia.viewed_model(first), pythia.viewed_model(second)) IS DISTINCT FROM (b.id, a.id) THEN
        RAISE EXCEPTION 'must be owner of models "%" and "%"', first, second USING ERRCODE = '42501';
    END IF;
    PERFORM pythia.check_exchange(a, b);
    UPDATE pythia.model SET relation = NULL WHERE id = a.id;
    UPDATE pythia.model SET relation = first WHERE id = b.id;
    UPDATE pythia.model SET relation = second WHERE id = a.id;
    UPDATE pythia.model_detail SET model_id = CASE model_id WHEN a.id THEN b.id ELSE a.id END WHERE model_id IN (a.id, b.id);
END $$;

CREATE OR REPLACE FUNCTION pythia.check_exchange(a pythia.model, b pythia.model) RETURNS void
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    difference text;
BEGIN
    SELECT format('The %s of the one is %s, of the other %s.', d.what, d.one, d.other) INTO difference
    FROM (VALUES
        (1, 'function', a.function, b.function),
        (2, 'list of attributes', pythia.attribute_list(a.spec), pythia.attribute_list(b.spec)),
        (3, 'result type', a.spec ->> 'result', b.spec ->> 'result'),
        (4, 'number of dimensions', a.spec ->> 'dimensions', b.spec ->> 'dimensions')) AS d(place, what, one, other)
    WHERE d.one IS DISTINCT FROM d.other ORDER BY d.place LIMIT 1;
    IF difference IS NOT NULL THEN
        RAISE EXCEPTION 'models "%" and "%" cannot stand in for each other', a.relation, b.relation
            USING ERRCODE = '42809', DETAIL = difference;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION pythia.attribute_list(spec jsonb) RETURNS text
LANGUAGE sql IMMUTABLE
RETURN (SELECT string_agg(upper(a ->> 'name') || ' ' || (a ->> 'type'), ', ' ORDER BY upper(a ->> 'name'))
        FROM jsonb_array_elements(spec -> 'attributes') AS a);

-- Sharing of weights -------------------------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW pythia.owned_model WITH (security_barrier = true) AS
SELECT relation, external_data, inmemory
FROM pythia.model m
WHERE EXISTS (SELECT FROM pg_class c WHERE c.oid = m.relation AND pg_has_role(c.relowner, 'USAGE'));
COMMENT ON VIEW pythia.owned_model IS 'The models whose owner the caller is, or is a member of; inmemory may be changed.';

CREATE OR REPLACE FUNCTION pythia.set_inmemory(model regclass, enable boolean) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owned pythia.owned_model;
BEGIN
    IF enable IS NULL THEN
        RAISE EXCEPTION 'enable must not be null' USING ERRCODE = '22004';
    END IF;
    SELECT * INTO owned FROM pythia.owned_model o WHERE o.relation = model;
    IF owned.relation IS NULL THEN
        RAISE EXCEPTION 'must be owner of model "%"', model USING ERRCODE = '42501';
    END IF;
    IF NOT owned.external_data THEN
        RAISE EXCEPTION 'model "%" has no external data', model
            USING ERRCODE = '55000', DETAIL = 'Only weights in files of their own can be shared between sessions.',
                  HINT = 'Load the model with its weights as external data, as pythia model load writes them.';
    END IF;
    UPDATE pythia.owned_model o SET inmemory = enable WHERE o.relation = model;
    IF enable THEN
        PERFORM pythia.populate_model(model);
    ELSE
        PERFORM pythia.reclaim_model(model);
    END IF;
END $$;

-- Let the engine map the weights now; a scoring call of no records does it.
CREATE OR REPLACE FUNCTION pythia.populate_model(model regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target pythia.model := (SELECT m FROM pythia.model m WHERE m.relation = populate_model.model);
    operator text := CASE target.function WHEN 'embedding' THEN 'vector_embedding' WHEN 'clustering' THEN 'cluster_id'
                     ELSE 'prediction' END;
BEGIN
    IF has_table_privilege(pythia.calling_role(), target.relation, 'SELECT') THEN
        PERFORM pythia.engine_call('score', json_build_array(
            target.package, target.inmemory, 0, operator, '[]'::json, '[]'::json)::text);
    END IF;
END $$;

-- Let the engine delete shared weights that no model of this database wants any more. Calls in progress keep them until they end;
-- another database that shares the package has them made anew.
CREATE OR REPLACE FUNCTION pythia.reclaim_model(model regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    unused text := (SELECT m.package FROM pythia.model m WHERE m.relation = reclaim_model.model);
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(unused, 0));  -- two names that give it up at once: the later sees the earlier
    IF unused IS NOT NULL AND NOT EXISTS (SELECT FROM pythia.model m WHERE m.package = unused AND m.inmemory) THEN
        PERFORM pythia.engine_call('reclaim', json_build_array(unused)::text);
    END IF;
END $$;
