-- Search in vector indexes. A statement gets one more condition, key = ANY ((SELECT vecsys.nearest_<id>(…))): which rows
-- may be among the nearest. Rights, row security, filters, joins and distances stay PostgreSQL's own.
--
-- Two functions are made for each index, so that their statements are planned once a session:
--   vecsys.candidates_<id>   SECURITY DEFINER: reads versions and journal, asks the engine
--   vecsys.nearest_<id>      SECURITY INVOKER: what a caller calls; chooses how a filter is applied, searches exactly where no
--                            version can be used
-- Both are STABLE: all parts of a statement see the same snapshot, the journal with its own uncommitted rows included.

-- More changed rows than this are not judged one by one: the whole table is searched.
CREATE OR REPLACE FUNCTION pythia.vector_journal_limit(rows bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 500 + rows / 8;

-- Tell whether policies hide rows of a table from the calling role.
CREATE OR REPLACE FUNCTION pythia.row_security_applies(relation oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT c.relrowsecurity AND NOT r.rolsuper AND NOT r.rolbypassrls
           AND (c.relforcerowsecurity OR NOT pg_has_role(r.oid, c.relowner, 'USAGE'))
    FROM pg_class c, pg_roles r
    WHERE c.oid = relation AND r.rolname = pythia.calling_role();
END;

-- Tell whether a role that may not read all of a table may search in it: it must be able to read the key, the vector, and each column
-- that the index is to judge, for the keys that come back tell what is in it.
CREATE OR REPLACE FUNCTION pythia.may_search_columns(index_id integer, predicate jsonb) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT bool_and(has_column_privilege(pythia.calling_role(), v.relation, c.name, 'SELECT'))
    FROM pythia.vector_index v, unnest(ARRAY[v.key_column, v.column_name] || v.include_columns) AS c(name)
    WHERE v.id = may_search_columns.index_id
      AND (c.name = ANY (ARRAY[v.key_column, v.column_name])
           OR jsonb_path_exists(predicate, 'strict $.** ? (@.type() == "array" && @[1] == $name)', jsonb_build_object('name', c.name)));
END;

CREATE OR REPLACE FUNCTION pythia.vector_operator(distance text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'OPERATOR(@extschema:vector@.' || CASE distance
    WHEN 'COSINE' THEN '<=>' WHEN 'EUCLIDEAN' THEN '<->' WHEN 'EUCLIDEAN_SQUARED' THEN '<->' WHEN 'DOT' THEN '<#>'
    WHEN 'MANHATTAN' THEN '<+>' WHEN 'HAMMING' THEN '<~>' WHEN 'JACCARD' THEN '<%>' END || ')';

-- What searches need of a definition, names as they are now; for those who may SELECT the table.
CREATE OR REPLACE FUNCTION pythia.vector_index_names(
    index_id integer, OUT relation regclass, OUT "table" text, OUT key text, OUT "column" text, OUT key_type text,
    OUT vector_type text, OUT distance text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT v.relation, format('%I.%I', n.nspname, c.relname), quote_ident(v.key_column), quote_ident(v.column_name),
           pythia.key_sql_type(v.key_type),
           CASE v.vector_type WHEN 'bit' THEN 'bit varying' ELSE '@extschema:vector@.' || v.vector_type END, v.distance
    FROM pythia.vector_index v JOIN pg_class c ON c.oid = v.relation JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE v.id = vector_index_names.index_id AND has_any_column_privilege(pythia.calling_role(), v.relation, 'SELECT');
END;

-- The k nearest of a query's rows by computing all distances: "+ 0" keeps pgvector's own indexes out of it. `source` gives key and vector of the rows; NULL: of all rows.
CREATE OR REPLACE FUNCTION pythia.exact_keys(index_id integer, query text, k integer, source text) RETURNS text[]
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    i    record;
    keys text[];
BEGIN
    SELECT * INTO i FROM pythia.vector_index_names(index_id);
    EXECUTE format('SELECT ARRAY(SELECT s.key::text FROM (%s) s(key, v) ORDER BY (s.v %s $1::%s) + 0 LIMIT $2)',
                   coalesce(source, format('SELECT t.%s, t.%s FROM %s t', i.key, i."column", i."table")),
                   pythia.vector_operator(i.distance), i.vector_type)
    INTO keys USING query, k;
    RETURN keys;
END $$;

-- Tell whether rows of an index's table may be without a vector.
CREATE OR REPLACE FUNCTION pythia.may_lack_vectors(index_id integer) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT NOT a.attnotnull FROM pythia.vector_index v
    JOIN pg_attribute a ON a.attrelid = v.relation AND a.attname = v.column_name WHERE v.id = index_id;
END;

-- pythia.vector_fingerprint() as an expression over pythia.vector_index "v" and pg_class "c": without a function call.
CREATE OR REPLACE FUNCTION pythia.vector_fingerprint_expression() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN $$CASE WHEN v.journal_state IS NOT NULL THEN concat_ws(' ', c.oid,
            CASE WHEN c.relfilenode = 0 THEN pythia.partition_files(c.oid) ELSE c.relfilenode::text END, v.journal_state) END$$;

-- A statement was made for another table that had this name then: one of another schema, or one that was exchanged for it. Clients
-- that translate statements make such a one anew (postgres/session.py).
CREATE OR REPLACE FUNCTION pythia.check_searched_table(index_id integer, given regclass) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known CONSTANT regclass := (SELECT n.relation FROM pythia.vector_index_names(index_id) n);
BEGIN
    IF known <> given THEN
        RAISE EXCEPTION 'the search was prepared for table "%", not for "%"', known, given
            USING ERRCODE = '42809', DETAIL = 'Tables were renamed, or the search_path was changed.', HINT = 'Run the statement again.';
    END IF;
END $$;

-- Remove an index's functions for searching that do not take a table yet; those that do would stand beside them.
CREATE OR REPLACE FUNCTION pythia.drop_older_searches(index_id integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    older regprocedure;
BEGIN
    FOR older IN
        SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = 'vecsys'::regnamespace AND p.proname ~ format('^(nearest|candidates)_(many_)?%s$', index_id)
          AND NOT 'of_table' = ANY (p.proargnames)
    LOOP
        EXECUTE format('DROP FUNCTION %s', older);
    END LOOP;
END $$;

-- Make both functions of an index; run again at every upgrade.
CREATE OR REPLACE FUNCTION pythia.define_vector_search(index_id integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $define$
DECLARE
    kind text;
    body text;
BEGIN
    SELECT v.vector_type INTO STRICT kind FROM pythia.vector_index v WHERE v.id = index_id;
    PERFORM pythia.drop_older_searches(index_id);
    body := $template$
CREATE OR REPLACE FUNCTION vecsys.candidates_{id}(
    query {type}, k integer, options jsonb, predicate jsonb, explain boolean, of_table regclass DEFAULT NULL,
    OUT keys text[], OUT changed text[], OUT complete boolean, OUT rows bigint, OUT facts jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    i        record;
    versions text;
    asked    integer;
    answer   text[];
BEGIN
    -- one query, and no more in it than most searches need: each clause costs a search some tens of microseconds
    SELECT c.oid AS relation, c.relrowsecurity AS secured, n.version, n.rows, n.token,
           has_table_privilege(pythia.calling_role(), c.oid, 'SELECT') OR pythia.may_search_columns({id}, predicate) AS allowed,
           n.fingerprint = {fingerprint} AS current,
           ARRAY(SELECT j.key::text FROM vecsys.journal_{id} j WHERE NOT pg_visible_in_snapshot(j.xid, n.snapshot)) AS changed
    INTO i
    FROM pythia.vector_index v JOIN pg_class c ON c.oid = v.relation
    LEFT JOIN LATERAL (
        SELECT * FROM pythia.vector_index_version o WHERE o.index_id = {id} ORDER BY o.version DESC LIMIT 1) n ON true
    WHERE v.id = {id};
    IF NOT i.allowed THEN
        RAISE EXCEPTION 'permission denied for table %', (SELECT c.relname FROM pg_class c WHERE c.oid = i.relation)
            USING ERRCODE = '42501';
    END IF;
    IF of_table <> i.relation THEN
        PERFORM pythia.check_searched_table({id}, of_table);
    END IF;
    rows := i.rows;
    IF cardinality(i.changed) > 1 THEN
        i.changed := ARRAY(SELECT DISTINCT u.key FROM unnest(i.changed) AS u(key));
    END IF;
    IF i.secured AND pythia.row_security_applies(i.relation) THEN
        facts := '{"exact": "row-level security applies"}';
    ELSIF i.version IS NULL THEN
        facts := '{"exact": "the index has no version yet"}';
    ELSIF i.current IS NOT TRUE THEN
        facts := '{"exact": "the table may have changed without the index having been told"}';
    ELSIF cardinality(i.changed) > pythia.vector_journal_limit(i.rows) THEN
        facts := jsonb_build_object('exact', format('%s rows have changed since version %s', cardinality(i.changed), i.version));
    END IF;
    IF facts IS NOT NULL THEN
        RETURN;
    END IF;
    asked := k + least(cardinality(i.changed), 64);
    versions := concat('[', i.version, ',"', i.token, '"]');
    LOOP
        answer := pythia.engine_call('search', concat(
            '[[', versions, '],"{kind}","', {send}, '",', asked, ',', coalesce(options::text, 'null'), ',',
            coalesce(predicate::text, 'null'), ',', CASE WHEN explain THEN 'true' ELSE 'false' END, ']'), optional => true);
        IF answer IS NULL THEN
            RAISE WARNING 'the engine is not available, the search is exact'
                USING ERRCODE = '58X01', HINT = 'Run: pythia engine status';
            facts := '{"exact": "the engine is not available"}';
            RETURN;
        ELSIF answer[1] = '0' AND answer[4] IS NULL AND i.token IS NOT NULL THEN  -- an older version may be here
            i.token := NULL;
            versions := (SELECT string_agg(concat('[', o.version, ',"', o.token, '"]'), ',' ORDER BY o.version DESC)
                         FROM pythia.vector_index_version o WHERE o.index_id = {id});
            CONTINUE;
        ELSIF answer[1] = '0' THEN
            facts := coalesce(answer[4]::jsonb, '{"exact": "the engine has no version of the index that this statement may use"}');
            IF facts ? 'refused' THEN
                RAISE WARNING 'the search is exact: %', facts ->> 'exact'
                    USING ERRCODE = '53200', DETAIL = facts ->> 'refused', HINT = 'SELECT index_name, error FROM pythia.vector_index_status;';
            END IF;
            RETURN;
        ELSIF answer[1]::bigint <> i.version THEN
            i.changed := ARRAY(
                SELECT DISTINCT j.key::text FROM vecsys.journal_{id} j
                WHERE NOT pg_visible_in_snapshot(j.xid, (
                    SELECT o.snapshot FROM pythia.vector_index_version o WHERE o.index_id = {id} AND o.version = answer[1]::bigint)));
        END IF;
        complete := answer[3];
        EXIT WHEN complete OR cardinality(i.changed) = 0 OR asked >= k + cardinality(i.changed);
        EXIT WHEN (SELECT count(*) FROM unnest(answer[2]::text[]) AS u(key) WHERE u.key <> ALL (i.changed)) >= k;
        asked := k + cardinality(i.changed);
    END LOOP;
    keys := answer[2];
    changed := i.changed;
    IF explain THEN
        facts := answer[4]::jsonb || jsonb_build_object('version', answer[1]::bigint, 'journal', cardinality(changed));
    END IF;
END $body$;

CREATE OR REPLACE FUNCTION vecsys.nearest_{id}(
    query {type}, k integer, options jsonb DEFAULT NULL, source text DEFAULT NULL, predicate jsonb DEFAULT NULL,
    explain boolean DEFAULT false, of_table regclass DEFAULT NULL)
RETURNS text[]
LANGUAGE plpgsql STABLE
AS $body$
DECLARE
    found  record;
    plan   record;
    passed integer;
    keys   text[];
    facts  jsonb;
    whole  CONSTANT boolean := coalesce((options ->> 'whole')::boolean, false);  -- the index judges the filter, all of it
BEGIN
    IF k > 1000000000 THEN  -- those are all rows, and something is added to it
        k := 1000000000;
    END IF;
    IF k <= 0 THEN
        RETURN '{}';
    ELSIF k IS NULL OR query IS NULL THEN  -- no limit, or nothing to be near to
        PERFORM pythia.check_searched_table({id}, of_table);
        RETURN pythia.exact_keys({id}, query::text, k, source);
    ELSIF source IS NULL OR whole AND (options ? 'filter' OR pythia.judging_is_quick(pythia.vector_index_rows({id}))) THEN
        found := vecsys.candidates_{id}(query, k, options, predicate, explain, of_table);
        keys := found.keys || found.changed;
        passed := cardinality(found.keys);
        IF found.changed <> '{}' THEN  -- a changed row may be gone, or far away now
            passed := (SELECT count(*) FROM unnest(found.keys) AS u(key) WHERE u.key <> ALL (found.changed));
        END IF;
        facts := found.facts;
    ELSIF options ->> 'filter' IS DISTINCT FROM 'pre' THEN
        SELECT * INTO plan FROM pythia.filter_plan(
            pythia.vector_index_rows({id}), k, source, pg_column_size(query), options, predicate);
        facts := CASE WHEN explain THEN to_jsonb(plan) - '{options,predicate}'::text[] END;
        WHILE plan.asked > 0 LOOP
            found := vecsys.candidates_{id}(query, plan.asked, plan.options, plan.predicate, explain, of_table);
            facts := facts || found.facts;
            EXIT WHEN found.keys IS NULL;
            keys := found.keys || found.changed;
            IF NOT whole THEN
                keys := pythia.surviving_keys('{key_type}', source, keys);
                facts := facts || '{"filter": "post"}';
            END IF;
            passed := cardinality(keys);
            IF passed >= k AND found.changed <> '{}' THEN  -- a changed row may be gone, or far away now
                passed := (SELECT count(*) FROM unnest(keys) AS u(key) WHERE u.key <> ALL (found.changed));
            END IF;
            EXIT WHEN whole OR found.complete OR passed >= k;
            keys := NULL;
            plan.options := plan.options - 'neighbors_per_row';  -- that was not so
            plan.asked := pythia.ask_again(greatest(plan.asked, cardinality(found.keys)), passed, k, found.rows, plan.pre_cost);
        END LOOP;
    END IF;
    -- Rows without a vector come last, but they come.
    IF keys IS NULL OR passed < k AND pythia.may_lack_vectors({id}) THEN
        IF source IS NULL THEN
            keys := pythia.exact_keys({id}, query::text, k, NULL);
        ELSE
            -- the key becomes a text behind the sort: in front of it that would be done for every row
            EXECUTE concat('SELECT ARRAY(SELECT n.key::text FROM (SELECT s.key FROM (', source,
                           ') s(key, v) ORDER BY (s.v {operator} $1) + 0 LIMIT $2) n)')
            INTO keys USING query, k;
        END IF;
        facts := coalesce(facts, '{}') || '{"filter": "pre"}';
    END IF;
    IF explain THEN
        PERFORM set_config('pythia.search', facts::text, true);
    END IF;
    RETURN keys;
END $body$;
$template$;
    body := replace(body, '{id}', index_id::text);
    body := replace(body, '{kind}', kind);
    body := replace(body, '{fingerprint}', pythia.vector_fingerprint_expression());
    body := replace(body, '{type}', CASE kind WHEN 'bit' THEN 'bit varying' ELSE '@extschema:vector@.' || kind END);
    body := replace(body, '{operator}', pythia.vector_operator((SELECT v.distance FROM pythia.vector_index v WHERE v.id = index_id)));
    body := replace(body, '{key_type}', (SELECT n.key_type FROM pythia.vector_index_names(index_id) n));
    body := replace(body, '{send}', CASE kind
        WHEN 'bit' THEN 'query::text'
        WHEN 'sparsevec' THEN 'encode(@extschema:vector@.sparsevec_send(query), ''hex'')'
        ELSE 'encode(@extschema:vector@.vector_send(query::@extschema:vector@.vector), ''hex'')' END);
    EXECUTE body;
END $define$;

-- The rows of an index's newest version.
CREATE OR REPLACE FUNCTION pythia.vector_index_rows(index_id integer) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT v.rows FROM pythia.vector_index_version v WHERE v.index_id = vector_index_rows.index_id ORDER BY v.version DESC LIMIT 1;
END;

-- What the keeper looks after: every index with its newest version, and whether the journal has rows beyond it.
CREATE OR REPLACE FUNCTION pythia.vector_index_work()
RETURNS TABLE (
    index_id integer, schema name, "table" name, "column" name, key name, key_type text, vector_type text, dimensions integer,
    organization text, distance text, target_accuracy integer, parameters jsonb, columns text[], parallel integer, status text,
    version bigint, token uuid, current boolean, changed boolean, rows bigint, facts jsonb, restored boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    i record;
BEGIN
    FOR i IN
        SELECT v.*, n.nspname, c.relname, o.version, o.token, o.snapshot, o.fingerprint, o.rows, o.facts
        FROM pythia.vector_index v JOIN pg_class c ON c.oid = v.relation JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN LATERAL (
            SELECT * FROM pythia.vector_index_version o WHERE o.index_id = v.id ORDER BY o.version DESC LIMIT 1) o ON true
    LOOP
        index_id := i.id; schema := i.nspname; "table" := i.relname; "column" := i.column_name; key := i.key_column;
        key_type := i.key_type; vector_type := i.vector_type; dimensions := i.dimensions; organization := i.organization;
        distance := i.distance; target_accuracy := i.target_accuracy; parameters := i.parameters; parallel := i.parallel;
        status := i.status; version := coalesce(i.version, 0); token := i.token; rows := coalesce(i.rows, 0);
        facts := coalesce(i.facts, '{}');
        restored := i.system_identifier <> (SELECT c.system_identifier FROM pg_control_system() c);
        columns := ARRAY(
            SELECT ARRAY[a.attname::text, format_type(a.atttypid, NULL)]
            FROM unnest(i.include_columns) WITH ORDINALITY AS u(name, n)
            JOIN pg_attribute a ON a.attrelid = i.relation AND a.attname = u.name ORDER BY u.n);
        current := (i.fingerprint = pythia.vector_fingerprint(i.id)) IS TRUE;
        changed := false;
        IF i.snapshot IS NOT NULL THEN
            EXECUTE format('SELECT EXISTS (SELECT FROM vecsys.journal_%s j WHERE NOT pg_visible_in_snapshot(j.xid, $1))', i.id)
            INTO changed USING i.snapshot;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
