-- Directories on the server's disk that models may be loaded from, as Oracle's DIRECTORY objects.

CREATE TABLE pythia.directory (
    name    text PRIMARY KEY CHECK (name = lower(name)),
    path    text NOT NULL CHECK (path LIKE '/%'),
    readers regrole[] NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE pythia.directory IS 'Folders of the server that dbms_vector.load_onnx_model may read, and the roles that may name them.';
