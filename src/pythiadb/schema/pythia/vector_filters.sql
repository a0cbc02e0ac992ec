-- How a search applies a filter:
--   pre    all distances of the rows that fulfil it are computed, without the index
--   in     the index looks only at rows that fulfil the conditions over its INCLUDE columns
--   post   the index is asked for so many neighbors that enough of them should fulfil it
-- Between pre and post decide PostgreSQL's estimates and what the ways cost, in microseconds. A filter that the index can judge as a
-- whole needs no estimate where that is quick: then it is in, and the index knows how many rows pass.

-- How PostgreSQL expects a query to come out: rows and cost, in the first line of its plan; as JSON they take twice as long.
-- VOLATILE, for EXPLAIN may not run in a STABLE function.
CREATE OR REPLACE FUNCTION pythia.estimate(query text, OUT rows double precision, OUT cost double precision)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    line  text;
    found text[];
BEGIN
    EXECUTE 'EXPLAIN ' || query INTO line;
    found := regexp_match(line, 'cost=[\d.]+\.\.([\d.]+) rows=(\d+)');
    cost := found[1];
    rows := found[2];
END $$;

-- What it takes to ask the index for neighbors and to look each of them up, which is most of it. Here and below the figures are CPU
-- time of backend and engine, measured with 116,791 rows of 384 dimensions (bench/search/filters.py); only their ratios count.
-- Of many rows several lie on a page.
CREATE OR REPLACE FUNCTION pythia.post_filter_cost(asked double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 900 + 3 * asked + 5 * least(asked, 500);

-- For how many neighbors that costs no more than something else: its inverse, of 8 a neighbor up to 500, and of 3 beyond.
CREATE OR REPLACE FUNCTION pythia.affordable_neighbors(cost double precision) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN greatest(least((cost - 900) / 8, 500), (cost - 900 - 5 * 500) / 3, 0);

-- What it takes to compute all distances of a query's rows, by PostgreSQL's estimates. `bytes`: of a vector; from 2,000 on it is not
-- stored in its row.
CREATE OR REPLACE FUNCTION pythia.pre_filter_cost(cost double precision, rows double precision, bytes integer) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 100 + 0.5 * cost + rows * (0.3 + bytes / 2000.0 + CASE WHEN bytes > 2000 THEN 5 ELSE 0 END);

-- What judging takes the index: to look at the columns of all rows, and then at few passing rows or by way of its structure.
CREATE OR REPLACE FUNCTION pythia.in_filter_cost(rows double precision, passing double precision, bytes integer) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 0.005 * rows + least(passing * (0.05 + bytes / 3500.0), 300 + 0.01 * rows);

-- Tell whether an index of so many rows judges a filter in less time than PostgreSQL takes to estimate it: some 0.2 ms.
CREATE OR REPLACE FUNCTION pythia.judging_is_quick(rows bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN rows <= 250000;

-- Of how many neighbors k fulfil a filter that `share` of them fulfil; of a hundred times once or twice it is not enough.
CREATE OR REPLACE FUNCTION pythia.neighbors_for(k double precision, share double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ceil((k + 2 * sqrt(k) + 2) / share);

-- How to begin. `rows`: of the index; `source`: the query for the filter's rows; `bytes`: of a vector; of `options` counts `whole`, where
-- the index judges the whole filter by itself, and `filter`, a hint: then pre is not weighed.
--   asked              neighbors to ask for, 0 for pre
--   predicate          what the index judges: NULL where what it judges is only a part, and nearly all rows fulfil the filter
--   options            where it judges a part, it is told how many rows should fulfil the whole: engine/searching.py, widened()
CREATE OR REPLACE FUNCTION pythia.filter_plan(
    rows bigint, k integer, source text, bytes integer, INOUT options jsonb, INOUT predicate jsonb,
    OUT asked integer, OUT estimated double precision, OUT pre_cost double precision, OUT index_cost double precision)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    forced CONSTANT boolean := coalesce(options ? 'filter', false);
    whole  CONSTANT boolean := coalesce((options ->> 'whole')::boolean, false);
    plan   record;
    share  double precision;
    wanted double precision;
    judged double precision;
BEGIN
    plan := pythia.estimate(source);
    estimated := least(plan.rows, rows);
    share := greatest(estimated, 1) / greatest(rows, 1);
    wanted := pythia.neighbors_for(k, share);
    index_cost := pythia.post_filter_cost(wanted);
    IF predicate IS NOT NULL THEN
        -- of the share that a part leaves nothing is known: half of the filter, in orders of magnitude
        judged := pythia.in_filter_cost(rows, estimated, bytes)
                  + pythia.post_filter_cost(CASE WHEN whole THEN k ELSE pythia.neighbors_for(k, sqrt(share)) END);
        -- what the index judges does not depend on where the rows lie, so that it may be the dearer way
        IF whole OR forced OR index_cost > 0.4 * judged THEN
            index_cost := judged;
            wanted := k;
        ELSE
            predicate := NULL;
        END IF;
    END IF;
    pre_cost := CASE WHEN forced THEN 'Infinity' ELSE pythia.pre_filter_cost(plan.cost, plan.rows, bytes) END;
    asked := CASE WHEN pre_cost <= index_cost OR wanted > rows / 3 AND NOT forced AND predicate IS NULL THEN 0
                  ELSE least(wanted, rows) END;
    IF predicate IS NOT NULL AND NOT whole THEN
        options := coalesce(options, '{}') || jsonb_build_object(
            'neighbors_per_row', pythia.neighbors_for(k, 1) / greatest(estimated, 1),
            'most', CASE WHEN forced THEN rows ELSE pythia.affordable_neighbors(pre_cost) END);
    END IF;
END $$;

-- How to go on when of `asked` neighbors only `passed`, fewer than k, fulfil the filter: near the query they are rarer than
-- elsewhere. As many as their share promises are asked for; the fewer passed, the less that tells, and the less may it cost: half of
-- what all distances take where none did. 0 for pre.
CREATE OR REPLACE FUNCTION pythia.ask_again(asked integer, passed integer, k integer, rows bigint, pre_cost double precision) RETURNS integer
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    wanted     CONSTANT double precision := greatest(2 * asked, pythia.neighbors_for(k, greatest(passed, 0.5) / asked));
    affordable CONSTANT double precision := pre_cost * (passed + 6) / (passed + 12);
BEGIN
    RETURN CASE WHEN wanted > rows / 3 OR pythia.post_filter_cost(wanted) > affordable THEN 0 ELSE wanted END;
END $$;

-- Those of `keys` that are among a query's rows.
CREATE OR REPLACE FUNCTION pythia.surviving_keys(key_type text, source text, keys text[]) RETURNS text[]
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    survivors text[];
BEGIN
    EXECUTE format('SELECT ARRAY(SELECT DISTINCT s.key::text FROM (%s) s(key, v) WHERE s.key = ANY ($1::%s[]))', source, key_type)
    INTO survivors USING keys;
    RETURN survivors;
END $$;
