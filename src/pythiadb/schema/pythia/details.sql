-- The detail views of a model, as Oracle's: DM$VM (what the graph is), DM$VP (parameters), DM$VJ (the metadata).
--
-- They read the table of models by the model's number, as the model's own view does, and do not depend on that view: whoever
-- drops it need not know about them, and what is left of them goes with the next clean-up. They belong to the model's owner, bear
-- its name behind five characters, and show nothing to a role that may not see the model.

CREATE OR REPLACE FUNCTION pythia.model_signature(facts jsonb, size bigint) RETURNS TABLE (name text, value text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT v.name, v.value
    FROM (VALUES (1, 'Graph Name', facts ->> 'graph_name'), (2, 'Graph Description', facts ->> 'graph_description'),
                 (3, 'Producer Name', facts ->> 'producer'), (4, 'Version', facts ->> 'version'),
                 (7, 'Model Size', size::text)) AS v(place, name, value)
    UNION ALL
    SELECT format('Input[%s]', n - 1), i.value
    FROM jsonb_array_elements_text(facts -> 'inputs') WITH ORDINALITY AS i(value, n)
    UNION ALL
    SELECT format('Output[%s]', n - 1), o.value
    FROM jsonb_array_elements_text(facts -> 'outputs') WITH ORDINALITY AS o(value, n);
END;

CREATE OR REPLACE FUNCTION pythia.model_parameters(metadata jsonb) RETURNS TABLE (name text, value text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT p.key, p.value #>> '{}' FROM jsonb_each(metadata) AS p ORDER BY p.key;
END;

-- The number of the model that a view shows: a model's own view, or a detail view.
CREATE OR REPLACE FUNCTION pythia.viewed_model(relation regclass) RETURNS bigint
LANGUAGE sql STABLE
RETURN (regexp_match(pg_get_viewdef(relation), 'WHERE \((?:m\.)?id = ''?(\d+)'))[1]::bigint;

-- A view that went to another owner than its model's is no detail view any more.
CREATE OR REPLACE VIEW pythia.detail_view AS
SELECT m.relation AS model, d.view, d.kind
FROM pythia.model_detail d
JOIN pythia.model m ON m.id = d.model_id
JOIN pg_class c ON c.oid = m.relation
JOIN pg_class v ON v.oid = d.view AND v.relowner = c.relowner;
COMMENT ON VIEW pythia.detail_view IS 'The detail views of models.';

CREATE OR REPLACE FUNCTION pythia.detail_view_name(model_name text, kind text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN model_name = lower(model_name) THEN lower(kind) ELSE upper(kind) END || model_name;

-- Let a view show a detail of a model: a new view, or one that shows another model so far.
CREATE OR REPLACE FUNCTION pythia.write_detail_view(view text, kind text, model_id bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE VIEW %s WITH (security_invoker = true) AS SELECT %s WHERE m.id = %s', view, CASE kind
        WHEN 'dm$vm' THEN 's.name, s.value FROM pythia.model_details AS m, pythia.model_signature(m.facts, m.model_size) AS s'
        WHEN 'dm$vp' THEN 'p.name, p.value FROM pythia.model_details AS m, pythia.model_parameters(m.metadata) AS p'
        ELSE 'm.metadata FROM pythia.model_details AS m' END, model_id);
END $$;

-- Remember a detail view. What the view shows, and that its owner is the model's, is seen here: no caller can lie.
CREATE OR REPLACE FUNCTION pythia.record_detail_view(view regclass, kind text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    shown bigint := pythia.viewed_model(view);
BEGIN
    IF NOT EXISTS (SELECT FROM pythia.model m JOIN pg_class c ON c.oid = m.relation, pg_class v
                   WHERE m.id = shown AND v.oid = record_detail_view.view AND v.relkind = 'v' AND v.relowner = c.relowner
                     AND lower(left(v.relname, 5)) = record_detail_view.kind) THEN
        RAISE EXCEPTION '"%" is not a detail view', view USING ERRCODE = '42809';
    END IF;
    DELETE FROM pythia.model_detail d
    WHERE d.view = record_detail_view.view OR (d.model_id, d.kind) = (shown, record_detail_view.kind);
    INSERT INTO pythia.model_detail VALUES (view, kind, shown);
END $$;

-- Create the detail views that a model lacks, as the caller, the model's owner.
CREATE OR REPLACE FUNCTION pythia.create_detail_views(model regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    place text;
    base  text;
    part  text;
    name  text;
BEGIN
    SELECT quote_ident(n.nspname), c.relname INTO place, base
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = model;
    FOREACH part IN ARRAY '{dm$vm,dm$vp,dm$vj}'::text[] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pythia.detail_view d WHERE d.model = create_detail_views.model AND d.kind = part);
        name := format('%s.%I', place, pythia.detail_view_name(base, part));
        IF to_regclass(name) IS NOT NULL THEN
            PERFORM pythia.free_detail_name(name);
        END IF;
        PERFORM pythia.write_detail_view(name, part, pythia.viewed_model(model));
        PERFORM pythia.record_detail_view(name::regclass, part);
    END LOOP;
END $$;

-- Take a name back from a model that DROP VIEW dropped or ALTER VIEW renamed, both of which leave the detail views alone.
CREATE OR REPLACE FUNCTION pythia.free_detail_name(name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pythia.remove_orphaned_models();
    PERFORM pythia.rename_detail_views(d.model) FROM pythia.detail_view d WHERE d.view = to_regclass(name);
    IF to_regclass(name) IS NOT NULL THEN
        RAISE EXCEPTION 'relation % already exists', name
            USING ERRCODE = '42P07', DETAIL = 'A detail view of the model needs this name.';
    END IF;
END $$;

-- Give the detail views of a model the names and the schema that go with its own.
CREATE OR REPLACE FUNCTION pythia.rename_detail_views(model regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    detail record;
BEGIN
    FOR detail IN
        SELECT d.view, c.relname, pythia.detail_view_name(m.relname, d.kind) AS wanted, c.relnamespace, m.relnamespace AS place
        FROM pythia.detail_view d
        JOIN pg_class c ON c.oid = d.view JOIN pg_class m ON m.oid = d.model
        WHERE d.model = rename_detail_views.model
    LOOP
        IF detail.relnamespace <> detail.place THEN
            EXECUTE format('ALTER VIEW %s SET SCHEMA %s', detail.view, detail.place::regnamespace);
        END IF;
        IF detail.relname <> detail.wanted THEN
            EXECUTE format('ALTER VIEW %s RENAME TO %I', detail.view, detail.wanted);
        END IF;
    END LOOP;
END $$;

-- Models of versions that had no detail views. The installer makes them for the models' owners, or for none.
CREATE OR REPLACE FUNCTION pythia.create_missing_detail_views() RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    model record;
BEGIN
    FOR model IN
        SELECT m.id, m.relation, c.relowner::regrole AS owner FROM pythia.model m JOIN pg_class c ON c.oid = m.relation
        WHERE octet_length(c.relname) <= 58 AND m.id NOT IN (SELECT d.model_id FROM pythia.model_detail d)
    LOOP
        BEGIN
            EXECUTE format('SET LOCAL ROLE %s', model.owner);
            PERFORM pythia.create_detail_views(model.relation);
            RESET ROLE;
        EXCEPTION WHEN duplicate_table OR insufficient_privilege THEN
            RAISE WARNING 'model % gets no detail views: %', model.relation, SQLERRM;
        END;
    END LOOP;
END $$;
