-- Searches for the vectors of many outer rows in a few calls of the engine. A CTE in front of the statement gathers the vectors and
-- asks vecsys.nearest_many_<id> for slices of them; each row looks its own up, and is searched for by itself (vector_search.sql)
-- where nothing is there for it. What was found is one jsonb object:
--   key of a vector -> version and keys of candidates, '12 {5,9,3}'
--   version         -> keys of the rows that changed since, '{7,8}'
--
-- Two more functions are made for each index:
--   vecsys.candidates_many_<id>   SECURITY DEFINER: asks the engine. vecsys.candidates_<id> decides whether it may, by the first vector
--   vecsys.nearest_many_<id>      SECURITY INVOKER: what a caller calls; chooses how many candidates a filter needs

-- By what a vector is found again: its bytes.
CREATE OR REPLACE FUNCTION pythia.query_key(query @extschema:vector@.vector) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN encode(sha256(@extschema:vector@.vector_send(query)), 'hex');

CREATE OR REPLACE FUNCTION pythia.query_key(query @extschema:vector@.halfvec) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN encode(sha256(@extschema:vector@.halfvec_send(query)), 'hex');

CREATE OR REPLACE FUNCTION pythia.query_key(query @extschema:vector@.sparsevec) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN encode(sha256(@extschema:vector@.sparsevec_send(query)), 'hex');

CREATE OR REPLACE FUNCTION pythia.query_key(query bit varying) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN encode(sha256(varbit_send(query)), 'hex');

-- The candidates that did not change since the index's version; NULL where nothing was found for a vector.
CREATE OR REPLACE FUNCTION pythia.gathered_candidates(gathered jsonb, query_key text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    entry CONSTANT text := gathered ->> query_key;
BEGIN
    RETURN substr(entry, strpos(entry, ' ') + 1)::text[];
END $$;

-- The same and all rows that changed: what vecsys.nearest_<id> would return.
CREATE OR REPLACE FUNCTION pythia.gathered_keys(gathered jsonb, query_key text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    entry CONSTANT text := gathered ->> query_key;
    place CONSTANT integer := strpos(entry, ' ');
BEGIN
    RETURN substr(entry, place + 1)::text[] || (gathered ->> left(entry, place - 1))::text[];
END $$;

-- Make both functions of an index; run again at every upgrade.
CREATE OR REPLACE FUNCTION pythia.define_vector_many(index_id integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $define$
DECLARE
    kind text;
    body text;
BEGIN
    SELECT v.vector_type INTO STRICT kind FROM pythia.vector_index v WHERE v.id = index_id;
    body := $template$
-- Candidates are given where at least `wanted` of them did not change: rows without a vector cannot be among the nearest, then.
CREATE OR REPLACE FUNCTION vecsys.candidates_many_{id}(
    queries {type}[], k integer, wanted integer, options jsonb, predicate jsonb, of_table regclass)
RETURNS TABLE (key text, value text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $body$
#variable_conflict use_column
DECLARE
    first  record;
    used   text;
    asked  integer;
    answer text[];
BEGIN
    first := vecsys.candidates_{id}(queries[1], k, options, predicate, true, of_table);
    used := first.facts ->> 'version';
    IF first.keys IS NULL OR used IS NULL THEN
        RETURN;  -- each row finds out why by itself
    END IF;
    asked := k + least(cardinality(first.changed), 64);
    answer := pythia.engine_call('search-many', concat(
        '[[[', used, ',"', (SELECT o.token FROM pythia.vector_index_version o WHERE o.index_id = {id} AND o.version = used::bigint),
        '"]],"{kind}",["', (SELECT string_agg({send}, '","' ORDER BY u.n) FROM unnest(queries) WITH ORDINALITY AS u(query, n)),
        '"],', asked, ',', coalesce(options::text, 'null'), ',', coalesce(predicate::text, 'null'), ']'), optional => true);
    IF answer IS NULL OR answer[1] = '0' THEN
        RETURN;
    END IF;
    key := used;
    value := first.changed::text;
    RETURN NEXT;
    RETURN QUERY
    SELECT pythia.query_key(queries[a.n]), concat(used, ' ', c.keys)
    FROM unnest(answer[3:]) WITH ORDINALITY AS a(keys, n)
    CROSS JOIN LATERAL (
        SELECT ARRAY(SELECT u.key FROM unnest(a.keys::text[]) AS u(key)
                     WHERE u.key NOT IN (SELECT o.key FROM unnest(first.changed) AS o(key))) AS keys) c
    WHERE cardinality(c.keys) >= wanted
      AND (cardinality(c.keys) >= k OR asked >= k + cardinality(first.changed) OR substr(answer[2], a.n::integer, 1) = 't');
END $body$;

CREATE OR REPLACE FUNCTION vecsys.nearest_many_{id}(
    queries {type}[], k integer, options jsonb DEFAULT NULL, source text DEFAULT NULL, predicate jsonb DEFAULT NULL,
    of_table regclass DEFAULT NULL)
RETURNS TABLE (key text, value text)
LANGUAGE plpgsql STABLE
AS $body$
#variable_conflict use_column
DECLARE
    asked integer := k;
    plan  record;
BEGIN
    IF source IS NOT NULL THEN
        SELECT * INTO plan FROM pythia.filter_plan(
            pythia.vector_index_rows({id}), k, source, pg_column_size(queries[1]), options, predicate);
        asked := plan.asked;
        options := plan.options;
        predicate := plan.predicate;
    END IF;
    IF k > 0 AND asked > 0 AND cardinality(queries) > 1 THEN
        RETURN QUERY SELECT c.key, c.value FROM vecsys.candidates_many_{id}(queries, asked, k, options, predicate, of_table) AS c;
    END IF;
END $body$;
$template$;
    body := replace(body, '{id}', index_id::text);
    body := replace(body, '{kind}', kind);
    body := replace(body, '{type}', CASE kind WHEN 'bit' THEN 'bit varying' ELSE '@extschema:vector@.' || kind END);
    body := replace(body, '{send}', CASE kind
        WHEN 'bit' THEN 'u.query::text'
        WHEN 'sparsevec' THEN 'encode(@extschema:vector@.sparsevec_send(u.query), ''hex'')'
        ELSE 'encode(@extschema:vector@.vector_send(u.query::@extschema:vector@.vector), ''hex'')' END);
    EXECUTE body;
END $define$;
