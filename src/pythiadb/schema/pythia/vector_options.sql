-- What the procedures of dbms_vector about indexes need: Oracle's way of naming things, and its options that mean nothing here.

-- 'a, b' as an array; NULL and '' as none.
CREATE OR REPLACE FUNCTION pythia.column_list(written text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT array_agg(btrim(c) ORDER BY n) FROM regexp_split_to_table(nullif(btrim(written), ''), ',') WITH ORDINALITY AS u(c, n));

-- Oracle's numbers are NUMBER; these count something.
CREATE OR REPLACE FUNCTION pythia.whole_number(argument text, value numeric) RETURNS integer
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF value <> trunc(value) OR abs(value) > 2147483647 THEN
        RAISE EXCEPTION '% must be a whole number, not %', argument, value USING ERRCODE = '22023', HINT = 'Round it.';
    END IF;
    RETURN value;
END $$;

CREATE OR REPLACE FUNCTION pythia.check_index_options(
    partitioning text, quantization text, compression numeric, distribution text, duplication text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    refused text := CASE
        WHEN upper(partitioning) NOT IN ('GLOBAL', '') THEN format('idx_partitioning_scheme %s', upper(partitioning))
        WHEN upper(quantization) NOT IN ('NONE', '') THEN format('idx_quantization_type %s', upper(quantization))
        WHEN compression IS NOT NULL THEN 'idx_compression_ratio'
        WHEN distribution <> '' THEN 'idx_distribute_parameters'
        WHEN duplication <> '' THEN 'idx_duplicate_parameters' END;
BEGIN
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION '% is not supported', refused
            USING ERRCODE = '0A000', DETAIL = 'A vector index covers its whole table; partitions keep compressed codes by themselves.',
                  HINT = 'Leave it out, or give NULL.';
    END IF;
END $$;

-- An index by Oracle's pair of owner and name. The owner is a role or, as it is the same in Oracle, the index's schema; without
-- one the search_path counts. Only for those who may see the index.
CREATE OR REPLACE FUNCTION pythia.owned_index_id(owner_name text, index_name text) RETURNS integer
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    found integer := pythia.find_owned_index(owner_name, index_name, pg_catalog.current_schemas(true));
BEGIN
    IF found IS NULL THEN
        RAISE EXCEPTION 'vector index "%" does not exist', pg_catalog.concat_ws('.', owner_name, index_name)
            USING ERRCODE = '42704', HINT = 'The vector indexes: SELECT owner, index_name FROM pythia.v$vector_index;';
    END IF;
    RETURN found;
END $$;

CREATE OR REPLACE FUNCTION pythia.find_owned_index(owner_name text, index_name text, search_path name[]) RETURNS integer
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner CONSTANT text := (parse_ident(owner_name))[1];
    found integer;
BEGIN
    IF owner IS NULL THEN
        found := pythia.find_vector_index(index_name, search_path);
    ELSE
        SELECT i.id INTO found
        FROM pythia.vector_index i
        JOIN pg_class c ON c.oid = i.relation
        JOIN pg_namespace n ON n.oid = i.namespace
        WHERE i.name = (parse_ident(index_name))[1] AND owner IN (n.nspname, pg_get_userbyid(c.relowner))
        ORDER BY n.nspname = owner DESC LIMIT 1;
    END IF;
    RETURN CASE WHEN pythia.may_see_vector_index(found) THEN found END;
END $$;

-- A rebuild works on the index as it is: what names its table and columns can only agree.
CREATE OR REPLACE FUNCTION pythia.check_rebuilt_index(index_id integer, relation regclass, vector_column text, include_columns text[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i pythia.vector_index := (SELECT v FROM pythia.vector_index v WHERE v.id = index_id);
BEGIN
    IF relation <> i.relation OR lower(vector_column) <> lower(i.column_name)
       OR lower(include_columns::text) <> lower(i.include_columns::text) THEN
        RAISE EXCEPTION 'table and columns of vector index "%" cannot be changed by rebuilding it', i.name
            USING ERRCODE = '0A000', HINT = 'Drop it, and create it with the other columns.';
    END IF;
END $$;

-- A build's stage in Oracle's words, where it has some.
CREATE OR REPLACE FUNCTION pythia.stage_name(stage text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
RETURN CASE stage WHEN 'loading' THEN 'Loading Vectors' WHEN 'linking' THEN 'Graph Construction' WHEN 'training' THEN 'Centroids Creation'
                  WHEN 'assigning' THEN 'Centroid Partitions Creation' ELSE coalesce(initcap(stage), 'Initialization') END;

-- What GET_INDEX_STATUS prints.
CREATE OR REPLACE FUNCTION pythia.index_status_lines(index_id integer) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i    pythia.vector_index := (SELECT v FROM pythia.vector_index v WHERE v.id = index_id);
    kind CONSTANT text := CASE pythia.chosen_organization(i) WHEN 'INMEMORY NEIGHBOR GRAPH' THEN 'HNSW Index' ELSE 'IVF Index' END;
BEGIN
    RETURN NEXT format('Index objn: %s', i.id);
    RETURN NEXT format('Stage: %s %s', kind, CASE i.status WHEN 'BUILDING' THEN pythia.stage_name(i.progress ->> 'stage')
                                                           WHEN 'VALID' THEN 'Creation Completed' ELSE initcap(i.status) END);
    IF i.status IN ('BUILDING', 'VALID') THEN
        RETURN NEXT format('Percentage: %s', CASE i.status WHEN 'VALID' THEN '100' ELSE coalesce(i.progress ->> 'percent', '0') END);
    END IF;
    RETURN QUERY SELECT l FROM pythia.race_line(index_id) AS l WHERE l IS NOT NULL;
    IF i.error IS NOT NULL THEN
        RETURN NEXT format('Error: %s', i.error);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION pythia.check_index_version(index_id integer, index_name text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pythia.vector_index_version v WHERE v.index_id = check_index_version.index_id) THEN
        RAISE EXCEPTION 'vector index "%" has no version yet', index_name
            USING ERRCODE = '55000', HINT = 'SELECT status, error FROM pythia.vector_index_status;';
    END IF;
END $$;

-- An index's name as SQL text, with its schema.
CREATE OR REPLACE FUNCTION pythia.qualified_index_name(index_id integer) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
RETURN (SELECT format('%s.%I', i.namespace, i.name) FROM pythia.vector_index i WHERE i.id = index_id);
