-- Models: the rows, their files in chunks, and the secret between the database and its engine.

CREATE TABLE pythia.engine_secret (
    secret bytea NOT NULL CHECK (length(secret) = 32)
);
COMMENT ON TABLE pythia.engine_secret IS 'Signs what functions send to the engine; readable by the owner of the schema only.';

-- gen_random_uuid() reads the operating system's strong random source.
INSERT INTO pythia.engine_secret
VALUES (sha256(decode(replace(concat(gen_random_uuid(), gen_random_uuid(), gen_random_uuid()), '-', ''), 'hex')));

CREATE TABLE pythia.model (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relation   regclass UNIQUE,
    loaded_by  name NOT NULL,
    function   text NOT NULL,
    package    text NOT NULL CHECK (package ~ '^[0-9a-f]{64}$'),
    spec       jsonb NOT NULL,
    metadata   jsonb NOT NULL,
    facts      jsonb NOT NULL,
    size       bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pythia.model IS 'One row a model. A role sees the models it may score with: those whose view it may SELECT.';
COMMENT ON COLUMN pythia.model.relation IS 'The view that carries name, owner and privileges; the right to SELECT it is the right to score.';
COMMENT ON COLUMN pythia.model.package IS 'Hash over spec and files: the engine''s cache key.';

CREATE INDEX model_package ON pythia.model (package);

CREATE TABLE pythia.model_file (
    model_id bigint NOT NULL REFERENCES pythia.model ON DELETE CASCADE,
    name     text NOT NULL CHECK (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]*$'),
    sha256   text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    size     bigint NOT NULL,
    PRIMARY KEY (model_id, name)
);
COMMENT ON TABLE pythia.model_file IS 'The files of a model; their bytes are in pythia.model_chunk under the same hash.';

CREATE INDEX model_file_sha256 ON pythia.model_file (sha256);

CREATE TABLE pythia.model_chunk (
    sha256 text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    no     integer NOT NULL CHECK (no >= 0),
    data   bytea NOT NULL,
    PRIMARY KEY (sha256, no)
);
COMMENT ON TABLE pythia.model_chunk IS 'File contents by content hash, in pieces; two models that share a file share its chunks.';

-- Weights do not compress: do not try.
ALTER TABLE pythia.model_chunk ALTER COLUMN data SET STORAGE EXTERNAL;

ALTER TABLE pythia.model ENABLE ROW LEVEL SECURITY;
CREATE POLICY model_reader ON pythia.model FOR SELECT USING (has_table_privilege(relation, 'SELECT'));
