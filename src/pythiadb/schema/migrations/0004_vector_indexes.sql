-- Vector indexes: definitions, versions, what was measured of them, captured queries. Journals are tables of schema vecsys.

CREATE TABLE pythia.vector_index (
    id                integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace         regnamespace NOT NULL,
    name              name NOT NULL,
    relation          regclass NOT NULL,
    column_name       name NOT NULL,
    key_column        name NOT NULL,
    key_type          text NOT NULL CHECK (key_type IN ('int', 'uuid', 'text', 'numeric')),
    vector_type       text NOT NULL CHECK (vector_type IN ('vector', 'halfvec', 'bit', 'sparsevec')),
    dimensions        integer,
    include_columns   name[] NOT NULL DEFAULT '{}',
    organization      text CHECK (organization IN ('INMEMORY NEIGHBOR GRAPH', 'NEIGHBOR PARTITIONS')),
    distance          text NOT NULL CHECK (distance IN ('COSINE', 'EUCLIDEAN', 'EUCLIDEAN_SQUARED', 'DOT', 'MANHATTAN', 'HAMMING', 'JACCARD')),
    target_accuracy   integer NOT NULL DEFAULT 90,
    parameters        jsonb NOT NULL DEFAULT '{}',
    parallel          integer NOT NULL DEFAULT 1,
    status            text NOT NULL DEFAULT 'BUILDING' CHECK (status IN ('BUILDING', 'VALID', 'FAILED', 'UNUSABLE')),
    error             text,
    error_code        text,
    progress          jsonb,
    journal_state     text,
    system_identifier bigint,
    requested_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at        timestamptz NOT NULL DEFAULT now(),
    UNIQUE (namespace, name),
    UNIQUE (relation, column_name)
);
COMMENT ON TABLE pythia.vector_index IS 'One row a vector index. A role sees the indexes of the tables that it may SELECT from.';
COMMENT ON COLUMN pythia.vector_index.organization IS 'The kind that was asked for; NULL leaves the choice to the build.';
COMMENT ON COLUMN pythia.vector_index.error_code IS 'The SQLSTATE of what keeps the index from being built or used.';
COMMENT ON COLUMN pythia.vector_index.journal_state IS 'Stands for the triggers that the table has and the partitions; NULL while changes may go unnoticed.';
COMMENT ON COLUMN pythia.vector_index.requested_at IS 'When a build was asked for last; setting it asks for another one.';

CREATE TABLE pythia.vector_index_version (
    index_id    integer NOT NULL REFERENCES pythia.vector_index ON DELETE CASCADE,
    version     bigint NOT NULL,
    token       uuid NOT NULL,
    snapshot    pg_snapshot NOT NULL,
    fingerprint text,
    rows        bigint NOT NULL,
    facts       jsonb NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (index_id, version)
);
COMMENT ON TABLE pythia.vector_index_version IS 'What an index holds: a statement that sees a row here may be answered from that version.';
COMMENT ON COLUMN pythia.vector_index_version.snapshot IS 'The version holds what this snapshot saw; journal rows outside it have changed since.';
COMMENT ON COLUMN pythia.vector_index_version.fingerprint IS 'pythia.vector_fingerprint() of that snapshot; where it differs now, the version must not be used.';

CREATE TABLE pythia.vector_index_accuracy (
    index_id     integer NOT NULL REFERENCES pythia.vector_index ON DELETE CASCADE,
    k            integer NOT NULL,
    filter       text NOT NULL CHECK (filter IN ('none', 'in')),
    target       integer NOT NULL,
    effort       jsonb NOT NULL,
    mean         real NOT NULL,
    p5           real NOT NULL,
    queries      integer NOT NULL,
    microseconds real,
    source       text NOT NULL CHECK (source IN ('held-out', 'captured')),
    measured_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (index_id, k, filter, target)
);
COMMENT ON TABLE pythia.vector_index_accuracy IS 'What share of the true neighbors was found when it was measured, by target, number of rows and kind of filter.';

CREATE TABLE pythia.vector_query (
    index_id    integer NOT NULL REFERENCES pythia.vector_index ON DELETE CASCADE,
    query       text NOT NULL,
    dimensions  integer NOT NULL,
    k           integer NOT NULL,
    target      integer,
    rank        double precision NOT NULL,
    captured_at timestamptz NOT NULL
);
COMMENT ON TABLE pythia.vector_query IS 'Query vectors of users, a sample, for measuring accuracy; readable by the owner of the schema only.';
COMMENT ON COLUMN pythia.vector_query.query IS 'The vector as pgvector writes it.';
COMMENT ON COLUMN pythia.vector_query.target IS 'The target accuracy of the search; NULL where it gave parameters instead.';
COMMENT ON COLUMN pythia.vector_query.rank IS 'A number by chance for each search; those of the lowest ranks are kept, so that every search has the same chance.';

CREATE INDEX vector_query_captured ON pythia.vector_query (index_id, captured_at);

CREATE TABLE pythia.vector_index_use (
    index_id     integer PRIMARY KEY REFERENCES pythia.vector_index ON DELETE CASCADE,
    used_count   bigint NOT NULL,
    last_used_at timestamptz NOT NULL
);
COMMENT ON TABLE pythia.vector_index_use IS 'How often searches have used an index; the engine adds to it every few seconds.';

CREATE TABLE pythia.vector_accuracy_report (
    task_id                  bigint NOT NULL,
    index_id                 integer NOT NULL REFERENCES pythia.vector_index ON DELETE CASCADE,
    task_time                timestamptz NOT NULL DEFAULT clock_timestamp(),
    min_target_accuracy      integer NOT NULL,
    max_target_accuracy      integer NOT NULL,
    num_vectors              integer NOT NULL,
    median_achieved_accuracy numeric NOT NULL,
    min_achieved_accuracy    numeric NOT NULL,
    max_achieved_accuracy    numeric NOT NULL,
    PRIMARY KEY (task_id, min_target_accuracy)
);
COMMENT ON TABLE pythia.vector_accuracy_report IS 'What DBMS_VECTOR.INDEX_ACCURACY_REPORT has found, in percent, by ranges of the target accuracy.';

CREATE INDEX vector_accuracy_report_index ON pythia.vector_accuracy_report (index_id);
CREATE SEQUENCE pythia.vector_accuracy_task;

-- An index is known to those who may read its table, and to those who watch the server.
ALTER TABLE pythia.vector_index ENABLE ROW LEVEL SECURITY;
CREATE POLICY vector_index_reader ON pythia.vector_index FOR SELECT
    USING (has_any_column_privilege(relation, 'SELECT') OR pg_has_role('pg_monitor', 'USAGE'));
ALTER TABLE pythia.vector_index_version ENABLE ROW LEVEL SECURITY;
CREATE POLICY vector_index_version_reader ON pythia.vector_index_version FOR SELECT
    USING (EXISTS (SELECT FROM pythia.vector_index i WHERE i.id = index_id));
ALTER TABLE pythia.vector_index_accuracy ENABLE ROW LEVEL SECURITY;
CREATE POLICY vector_index_accuracy_reader ON pythia.vector_index_accuracy FOR SELECT
    USING (EXISTS (SELECT FROM pythia.vector_index i WHERE i.id = index_id));
ALTER TABLE pythia.vector_index_use ENABLE ROW LEVEL SECURITY;
CREATE POLICY vector_index_use_reader ON pythia.vector_index_use FOR SELECT
    USING (EXISTS (SELECT FROM pythia.vector_index i WHERE i.id = index_id));
ALTER TABLE pythia.vector_accuracy_report ENABLE ROW LEVEL SECURITY;
CREATE POLICY vector_accuracy_report_reader ON pythia.vector_accuracy_report FOR SELECT
    USING (EXISTS (SELECT FROM pythia.vector_index i WHERE i.id = index_id));

-- One way to the files of a directory instead of two.
DROP FUNCTION IF EXISTS pythia.read_directory_file(text, text), pythia.read_any_directory_file(text, text),
    pythia.read_shared_directory_file(text, text), pythia.fetch_directory_file(text, text),
    pythia.fetch_any_directory_file(text, text), pythia.fetch_shared_directory_file(text, text);
