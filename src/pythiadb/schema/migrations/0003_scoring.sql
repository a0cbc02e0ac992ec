-- Models of every mining function, shared memory, and credentials for fetching models.

ALTER TABLE pythia.model
    ADD COLUMN external_data  boolean NOT NULL DEFAULT false,
    ADD COLUMN inmemory       boolean NOT NULL DEFAULT false,
    ADD COLUMN build_duration double precision,
    ADD CONSTRAINT model_inmemory_check CHECK (external_data OR NOT inmemory);
COMMENT ON COLUMN pythia.model.external_data IS 'Whether weights lie in files of their own, beside the graph.';
COMMENT ON COLUMN pythia.model.inmemory IS 'Whether all sessions share one copy of the weights: see dbms_vector.inmemory_onnx_model.';
COMMENT ON COLUMN pythia.model.build_duration IS 'Seconds that the load took, the trial run included; NULL for models of older versions.';

-- Specifications of format 1 knew text embeddings only; the roles of their inputs followed from their order.
UPDATE pythia.model m SET spec = jsonb_build_object(
    'format', 2, 'function', spec ->> 'function', 'graph', spec ->> 'graph',
    'inputs', (
        SELECT jsonb_agg(jsonb_build_object(
            'tensor', name, 'attributes', spec -> 'attributes',
            'source', CASE WHEN spec ->> 'tokenizer' IS NULL THEN 'text' ELSE (ARRAY['ids', 'mask', 'types'])[n] END) ORDER BY n)
        FROM jsonb_array_elements_text(spec -> 'inputs') WITH ORDINALITY AS i(name, n)),
    'outputs', jsonb_build_object('embedding', spec -> 'output'),
    'attributes', (
        SELECT jsonb_agg(jsonb_build_object('name', name, 'type', 'text') ORDER BY n)
        FROM jsonb_array_elements_text(spec -> 'attributes') WITH ORDINALITY AS a(name, n)),
    'result', 'vector', 'tokenizer', spec -> 'tokenizer', 'max_tokens', spec -> 'max_tokens', 'prefix', NULL, 'image', NULL,
    'dimensions', spec -> 'dimensions', 'labels', NULL, 'normalize_prob', 'none', 'default_on_null', '{}'::jsonb)
WHERE spec ->> 'format' = '1';

-- The package's hash is over the specification too: the engine unpacks the model again at its next use.
UPDATE pythia.model m SET package = encode(sha256(convert_to(jsonb_build_object('spec', m.spec, 'files', f.files)::text, 'UTF8')), 'hex'),
    external_data = f.external
FROM (SELECT o.id, jsonb_agg(jsonb_build_object('name', p.name, 'sha256', p.sha256, 'size', p.size) ORDER BY p.name) AS files,
             bool_or(p.name NOT IN (o.spec ->> 'graph', coalesce(o.spec ->> 'tokenizer', ''))) AS external
      FROM pythia.model_file p JOIN pythia.model o ON o.id = p.model_id GROUP BY o.id) AS f
WHERE f.id = m.id;

CREATE TABLE pythia.model_detail (
    view     regclass PRIMARY KEY,
    kind     text NOT NULL CHECK (kind IN ('dm$vm', 'dm$vp', 'dm$vj')),
    model_id bigint NOT NULL REFERENCES pythia.model ON DELETE CASCADE,
    UNIQUE (model_id, kind) DEFERRABLE
);
COMMENT ON TABLE pythia.model_detail IS 'The views that show what a model is; a switch of two models exchanges their rows.';

CREATE TABLE pythia.credential (
    handle     uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    owner      regrole NOT NULL DEFAULT to_regrole(quote_ident(current_user)),
    name       text NOT NULL CHECK (name <> ''),
    attributes jsonb NOT NULL CHECK (jsonb_typeof(attributes) = 'object'),
    UNIQUE (owner, name)
);
COMMENT ON TABLE pythia.credential IS 'Secrets for fetching models; readable by the owner of the schema only.';
COMMENT ON COLUMN pythia.credential.handle IS 'What stands for the credential in calls: only its owner sees it, and nobody sees the attributes.';

-- What has other arguments or results from here on; the definitions follow.
DROP FUNCTION IF EXISTS pythia.scoring_package(regclass, text, text);
DROP FUNCTION IF EXISTS pythia.create_model_from_onnx(text, bytea, jsonb);
DROP FUNCTION IF EXISTS pythia.inspect_onnx(jsonb, jsonb);
DROP PROCEDURE IF EXISTS dbms_vector.load_onnx_model(text, text, text, jsonb);
