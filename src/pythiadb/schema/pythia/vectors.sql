-- Oracle's vector functions over pgvector's types: vector (FLOAT32), bit (BINARY), sparsevec (SPARSE).
-- Functions of one expression carry no SET clause: PostgreSQL then inlines them, and pgvector's operators stay visible to
-- the planner. Their bodies are parsed when they are made, so no search_path can change their meaning.

CREATE OR REPLACE FUNCTION pythia.wrong_metric(metric text, type text) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'distance metric % is not available for %', coalesce(quote_ident(metric), 'NULL'), type
        USING ERRCODE = '22023', HINT = CASE type
            WHEN 'bit' THEN 'Binary vectors have HAMMING and JACCARD.'
            ELSE 'Use COSINE, DOT, EUCLIDEAN, EUCLIDEAN_SQUARED, L2_SQUARED, MANHATTAN or HAMMING.' END;
END $$;

CREATE OR REPLACE FUNCTION pythia.hamming_distance(a @extschema:vector@.vector, b @extschema:vector@.vector) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    x real[] := a::real[];
    y real[] := b::real[];
BEGIN
    IF cardinality(x) <> cardinality(y) THEN
        RAISE EXCEPTION 'different vector dimensions % and %', cardinality(x), cardinality(y) USING ERRCODE = '22000';
    END IF;
    RETURN (SELECT count(*) FROM unnest(x, y) AS pair(p, q) WHERE p <> q);
END $$;

CREATE OR REPLACE FUNCTION pythia.vector_distance(a @extschema:vector@.vector, b @extschema:vector@.vector, metric text)
RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE upper(metric)
    WHEN 'COSINE' THEN a OPERATOR(@extschema:vector@.<=>) b
    WHEN 'EUCLIDEAN' THEN a OPERATOR(@extschema:vector@.<->) b
    WHEN 'DOT' THEN a OPERATOR(@extschema:vector@.<#>) b
    WHEN 'EUCLIDEAN_SQUARED' THEN @extschema:vector@.vector_l2_squared_distance(a, b)
    WHEN 'L2_SQUARED' THEN @extschema:vector@.vector_l2_squared_distance(a, b)
    WHEN 'MANHATTAN' THEN a OPERATOR(@extschema:vector@.<+>) b
    WHEN 'HAMMING' THEN pythia.hamming_distance(a, b)
    ELSE pythia.wrong_metric(metric, 'vector') END;

CREATE OR REPLACE FUNCTION pythia.vector_distance(a @extschema:vector@.vector, b @extschema:vector@.vector)
RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN a OPERATOR(@extschema:vector@.<=>) b;

CREATE OR REPLACE FUNCTION pythia.vector_distance(a bit, b bit, metric text) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE upper(metric)
    WHEN 'HAMMING' THEN a OPERATOR(@extschema:vector@.<~>) b
    WHEN 'JACCARD' THEN a OPERATOR(@extschema:vector@.<%>) b
    ELSE pythia.wrong_metric(metric, 'bit') END;

CREATE OR REPLACE FUNCTION pythia.vector_distance(a bit, b bit) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN a OPERATOR(@extschema:vector@.<~>) b;

CREATE OR REPLACE FUNCTION pythia.vector_distance(a @extschema:vector@.sparsevec, b @extschema:vector@.sparsevec, metric text)
RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE upper(metric)
    WHEN 'COSINE' THEN a OPERATOR(@extschema:vector@.<=>) b
    WHEN 'EUCLIDEAN' THEN a OPERATOR(@extschema:vector@.<->) b
    WHEN 'DOT' THEN a OPERATOR(@extschema:vector@.<#>) b
    WHEN 'EUCLIDEAN_SQUARED' THEN @extschema:vector@.sparsevec_l2_squared_distance(a, b)
    WHEN 'L2_SQUARED' THEN @extschema:vector@.sparsevec_l2_squared_distance(a, b)
    WHEN 'MANHATTAN' THEN a OPERATOR(@extschema:vector@.<+>) b
    WHEN 'HAMMING' THEN pythia.hamming_distance(a::@extschema:vector@.vector, b::@extschema:vector@.vector)
    ELSE pythia.wrong_metric(metric, 'sparsevec') END;

CREATE OR REPLACE FUNCTION pythia.vector_distance(a @extschema:vector@.sparsevec, b @extschema:vector@.sparsevec)
RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN a OPERATOR(@extschema:vector@.<=>) b;

CREATE OR REPLACE FUNCTION pythia.check_dimensions(actual integer, expected integer) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF actual <> expected THEN
        RAISE EXCEPTION 'expected % dimensions, not %', expected, actual USING ERRCODE = '22000';
    END IF;
END $$;

CREATE OR REPLACE FUNCTION pythia.to_vector(data @extschema:vector@.vector, dimensions integer DEFAULT NULL)
RETURNS @extschema:vector@.vector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pythia.check_dimensions(@extschema:vector@.vector_dims(data), dimensions);
    RETURN data;
END $$;

CREATE OR REPLACE FUNCTION pythia.to_vector(data text, dimensions integer DEFAULT NULL) RETURNS @extschema:vector@.vector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN pythia.to_vector(data::@extschema:vector@.vector, dimensions);
END $$;

CREATE OR REPLACE FUNCTION pythia.to_vector(data jsonb, dimensions integer DEFAULT NULL) RETURNS @extschema:vector@.vector
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pythia.to_vector(data::text, dimensions);

-- Oracle's text form of a binary vector is its bytes, the first dimension being the most significant bit: [201, 15].
CREATE OR REPLACE FUNCTION pythia.to_binary_vector(data text, dimensions integer DEFAULT NULL) RETURNS bit
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    bytes integer[] := translate(data, '[]', '{}')::integer[];
    bits  text;
BEGIN
    IF cardinality(bytes) = 0 THEN
        RAISE EXCEPTION 'vector must have at least 1 dimension' USING ERRCODE = '22000';
    END IF;
    IF EXISTS (SELECT FROM unnest(bytes) AS byte WHERE byte IS NULL OR byte NOT BETWEEN 0 AND 255) THEN
        RAISE EXCEPTION 'value of a binary vector is out of range: %', data
            USING ERRCODE = '22003', HINT = 'Write one number from 0 to 255 for eight dimensions, for example [201, 15].';
    END IF;
    PERFORM pythia.check_dimensions(8 * cardinality(bytes), dimensions);
    SELECT string_agg(byte::bit(8)::text, '' ORDER BY n) INTO bits FROM unnest(bytes) WITH ORDINALITY AS u(byte, n);
    RETURN bits::varbit;
END $$;

-- Oracle's text form of a sparse vector: [dimensions, [indices from 0], [values]].
CREATE OR REPLACE FUNCTION pythia.to_sparse_vector(data text, dimensions integer DEFAULT NULL) RETURNS @extschema:vector@.sparsevec
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parts jsonb := data::jsonb;
    size  integer := coalesce((parts ->> -3)::integer, dimensions);
BEGIN
    IF data IS NULL THEN
        RETURN NULL;
    END IF;
    IF jsonb_typeof(parts -> 0) = 'number' AND jsonb_typeof(parts -> 1) IS DISTINCT FROM 'array' THEN
        RETURN pythia.to_vector(data, dimensions)::@extschema:vector@.sparsevec;  -- a dense text
    END IF;
    IF size IS NULL OR jsonb_array_length(parts -> -2) <> jsonb_array_length(parts -> -1) THEN
        RAISE EXCEPTION 'invalid sparse vector: %', data
            USING ERRCODE = '22P02', HINT = 'Write [dimensions, [indices from 0], [values]], for example [5, [2, 4], [10, 20]].';
    END IF;
    PERFORM pythia.check_dimensions(size, dimensions);
    RETURN format('{%s}/%s', (
        SELECT string_agg(format('%s:%s', i.index::integer + 1, v.value), ',' ORDER BY i.index::integer)
        FROM jsonb_array_elements_text(parts -> -2) WITH ORDINALITY AS i(index, n)
        JOIN jsonb_array_elements(parts -> -1) WITH ORDINALITY AS v(value, n) USING (n)), size)::@extschema:vector@.sparsevec;
END $$;

CREATE OR REPLACE FUNCTION pythia.to_sparse_vector(data @extschema:vector@.vector, dimensions integer DEFAULT NULL)
RETURNS @extschema:vector@.sparsevec
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pythia.to_vector(data, dimensions)::@extschema:vector@.sparsevec;

CREATE OR REPLACE FUNCTION pythia.from_vector(v @extschema:vector@.vector) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN v::text;

CREATE OR REPLACE FUNCTION pythia.from_vector(v bit) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT CASE WHEN v IS NOT NULL THEN '[' || string_agg((substring(v FROM n FOR 8)::bit(8)::integer)::text, ',' ORDER BY n) || ']' END
    FROM generate_series(1, length(v), 8) AS n;
END;

CREATE OR REPLACE FUNCTION pythia.from_vector(v @extschema:vector@.sparsevec) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT CASE WHEN v IS NOT NULL THEN format('[%s,[%s],[%s]]', split_part(v::text, '/', 2),
        string_agg((split_part(entry, ':', 1)::integer - 1)::text, ',' ORDER BY n), string_agg(split_part(entry, ':', 2), ',' ORDER BY n)) END
    FROM unnest(string_to_array(nullif(btrim(split_part(v::text, '/', 1), '{}'), ''), ',')) WITH ORDINALITY AS e(entry, n);
END;

CREATE OR REPLACE FUNCTION pythia.from_vector_sparse(v @extschema:vector@.vector) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pythia.from_vector(v::@extschema:vector@.sparsevec);

CREATE OR REPLACE FUNCTION pythia.vector_dims(v @extschema:vector@.vector) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN @extschema:vector@.vector_dims(v);

CREATE OR REPLACE FUNCTION pythia.vector_dims(v bit) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN length(v);

CREATE OR REPLACE FUNCTION pythia.vector_dims(v @extschema:vector@.sparsevec) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN split_part(v::text, '/', 2)::integer;

CREATE OR REPLACE FUNCTION pythia.vector_norm(v @extschema:vector@.vector) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN @extschema:vector@.vector_norm(v);

CREATE OR REPLACE FUNCTION pythia.vector_dimension_format(v @extschema:vector@.vector) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN v IS NOT NULL THEN 'FLOAT32' END;

CREATE OR REPLACE FUNCTION pythia.vector_dimension_format(v bit) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN v IS NOT NULL THEN 'BINARY' END;

CREATE OR REPLACE FUNCTION pythia.vector_dimension_format(v @extschema:vector@.sparsevec) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN v IS NOT NULL THEN 'FLOAT32' END;
