-- The detail views of a model, as Oracle's: DM$VM (what the graph is), DM$VP (parameters), DM$VJ (the metadata).
--
-- They select from the model's own view, so they go with it, show another model after a switch, and show nothing to a role that
-- may not see the model. They belong to the model's owner and bear its name behind five characters.

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

-- The detail views of a model: those of its owner that select from its view and bear such a name.
CREATE OR REPLACE FUNCTION pythia.detail_views(model regclass) RETURNS TABLE (view regclass, kind text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT DISTINCT c.oid::regclass, lower(left(c.relname, 5))
    FROM pg_depend d
    JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    JOIN pg_class c ON c.oid = r.ev_class
    JOIN pg_class m ON m.oid = d.refobjid
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = model AND c.oid <> m.oid
      AND c.relkind = 'v' AND c.relowner = m.relowner
      AND lower(left(c.relname, 5)) IN ('dm$vm', 'dm$vp', 'dm$vj');
END;

CREATE OR REPLACE FUNCTION pythia.detail_view_name(model_name text, kind text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN model_name = lower(model_name) THEN lower(kind) ELSE upper(kind) END || model_name;

-- Create the detail views that a model lacks, as the caller, the model's owner.
CREATE OR REPLACE FUNCTION pythia.create_detail_views(model regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    place text;
    base  text;
    other regclass;
    part  text;
    body  text;
BEGIN
    SELECT quote_ident(n.nspname), c.relname INTO place, base
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = model;
    FOR part, body IN VALUES
        ('dm$vm', 's.name, s.value FROM %s AS m, pythia.model_signature(m.facts, m.model_size) AS s'),
        ('dm$vp', 'p.name, p.value FROM %s AS m, pythia.model_parameters(m.metadata) AS p'),
        ('dm$vj', 'm.metadata FROM %s AS m')
    LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pythia.detail_views(model) AS d WHERE d.kind = part);
        -- A model that ALTER VIEW has renamed may still hold the name.
        other := (SELECT m.relation FROM pythia.model m, pythia.detail_views(m.relation) AS d
                  WHERE d.view = to_regclass(format('%s.%I', place, pythia.detail_view_name(base, part))));
        IF other IS NOT NULL THEN
            PERFORM pythia.rename_detail_views(other);
        END IF;
        EXECUTE format('CREATE VIEW %s.%I AS SELECT ' || body, place, pythia.detail_view_name(base, part), model);
    END LOOP;
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
        FROM pythia.detail_views(model) AS d
        JOIN pg_class c ON c.oid = d.view JOIN pg_class m ON m.oid = rename_detail_views.model
    LOOP
        IF detail.relnamespace <> detail.place THEN
            EXECUTE format('ALTER VIEW %s SET SCHEMA %s', detail.view, detail.place::regnamespace);
        END IF;
        IF detail.relname <> detail.wanted THEN
            EXECUTE format('ALTER VIEW %s RENAME TO %I', detail.view, detail.wanted);
        END IF;
    END LOOP;
END $$;

-- Models of versions that had no detail views.
DO $$
DECLARE
    model  record;
    detail regclass;
BEGIN
    FOR model IN
        SELECT m.relation, c.relowner FROM pythia.model m JOIN pg_class c ON c.oid = m.relation
        WHERE octet_length(c.relname) <= 58 AND NOT EXISTS (SELECT FROM pythia.detail_views(m.relation))
    LOOP
        BEGIN
            PERFORM pythia.create_detail_views(model.relation);
            FOR detail IN
                SELECT DISTINCT r.ev_class FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
                WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
                  AND d.refobjid = model.relation AND v.relname ~* '^dm\$v[mpj]'
            LOOP
                EXECUTE format('ALTER VIEW %s OWNER TO %s', detail, model.relowner::regrole);
            END LOOP;
        EXCEPTION WHEN duplicate_table OR insufficient_privilege THEN
            RAISE WARNING 'model % gets no detail views: %', model.relation, SQLERRM;
        END;
    END LOOP;
END $$;
