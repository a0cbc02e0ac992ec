-- Who may do what: the one place that grants. Runs last, at every install and upgrade.

REVOKE ALL ON ALL TABLES IN SCHEMA pythia, vecsys FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA pythia FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA dbms_vector, dbms_data_mining FROM PUBLIC;

GRANT USAGE ON SCHEMA pythia, vecsys, dbms_vector, dbms_data_mining, dbms_output TO PUBLIC;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA dbms_vector, dbms_data_mining TO PUBLIC;
REVOKE ALL ON PROCEDURE dbms_vector.load_onnx_model_cloud FROM PUBLIC;  -- pythia.grant_cloud_access

-- Views that show the caller what is his, or what he may use.
GRANT SELECT ON
    pythia.schema_version, pythia.model, pythia.model_details, pythia.detail_view,
    pythia.user_mining_models, pythia.user_mining_model_attributes, pythia.user_mining_model_views, pythia.user_mining_model_settings,
    pythia.all_mining_models, pythia.all_mining_model_attributes, pythia.all_mining_model_views, pythia.all_mining_model_settings,
    pythia.v$im_onnx_model, pythia.v$im_onnx_segment
TO PUBLIC;
GRANT SELECT ON
    pythia.dba_mining_models, pythia.dba_mining_model_attributes, pythia.dba_mining_model_views, pythia.dba_mining_model_settings
TO pg_monitor;
GRANT SELECT, UPDATE (inmemory) ON pythia.owned_model TO PUBLIC;
GRANT SELECT ON pythia.owned_model_chunk TO PUBLIC;
GRANT SELECT (credential_name, handle), DELETE ON pythia.user_credentials TO PUBLIC;  -- INSERT: pythia.grant_cloud_access

-- Scoring checks the model's own privilege.
GRANT EXECUTE ON FUNCTION
    pythia.vector_embedding(regclass, text, text), pythia.vector_embedding(regclass, bytea, text),
    pythia.vector_embedding(regclass, anyelement, text), pythia.vector_embedding_batch,
    pythia.text_input(text), pythia.text_input(anyelement), pythia.text_input(bytea),
    pythia.vector_embedding_immutable(regclass, text, text), pythia.vector_embedding_immutable(regclass, bytea, text),
    pythia.prediction, pythia.prediction_probability,
    pythia.prediction_set(regclass, jsonb, integer, double precision), pythia.prediction_set(regclass, jsonb, integer, double precision, anyelement),
    pythia.cluster_id, pythia.cluster_probability, pythia.cluster_distance, pythia.cluster_set,
    pythia.scoring_batch,
    pythia.scoring_columns(regclass, text, jsonb, text[], anyarray, bigint, anycompatible),
    pythia.scoring_columns(regclass, text, jsonb, text[], anyarray, bigint, anycompatible, jsonb),
    pythia.table_ranges, pythia.range_arrays,
    pythia.shared_models, pythia.engine_ping
TO PUBLIC;

-- Vector arithmetic is nobody's secret.
GRANT EXECUTE ON FUNCTION
    pythia.vector_distance(@extschema:vector@.vector, @extschema:vector@.vector, text),
    pythia.vector_distance(@extschema:vector@.vector, @extschema:vector@.vector),
    pythia.vector_distance(bit, bit, text), pythia.vector_distance(bit, bit),
    pythia.vector_distance(@extschema:vector@.sparsevec, @extschema:vector@.sparsevec, text),
    pythia.vector_distance(@extschema:vector@.sparsevec, @extschema:vector@.sparsevec),
    pythia.wrong_metric, pythia.hamming_distance, pythia.check_dimensions,
    pythia.to_vector(@extschema:vector@.vector, integer), pythia.to_vector(text, integer), pythia.to_vector(jsonb, integer),
    pythia.to_binary_vector, pythia.to_sparse_vector(text, integer), pythia.to_sparse_vector(@extschema:vector@.vector, integer),
    pythia.from_vector(@extschema:vector@.vector), pythia.from_vector(bit), pythia.from_vector(@extschema:vector@.sparsevec),
    pythia.from_vector_sparse,
    pythia.vector_dims(@extschema:vector@.vector), pythia.vector_dims(bit), pythia.vector_dims(@extschema:vector@.sparsevec),
    pythia.vector_norm, pythia.vector_dimension_format(@extschema:vector@.vector),
    pythia.vector_dimension_format(bit), pythia.vector_dimension_format(@extschema:vector@.sparsevec)
TO PUBLIC;

-- Dropping, naming and switching run as the caller, who needs the view's ownership; loading needs pythia.grant_create_model.
GRANT EXECUTE ON FUNCTION
    pythia.model_name, pythia.model_relation, pythia.is_model, pythia.check_new_model, pythia.check_loader,
    pythia.create_model, pythia.create_model_from_files, pythia.drop_model, pythia.rename_model, pythia.remove_orphaned_models,
    pythia.model_signature, pythia.model_parameters, pythia.oracle_name,
    pythia.viewed_model, pythia.detail_view_name, pythia.write_detail_view, pythia.record_detail_view,
    pythia.create_detail_views, pythia.free_detail_name, pythia.rename_detail_views,
    pythia.exchange_views, pythia.exchange_models, pythia.set_inmemory, pythia.populate_model,
    pythia.reclaim_model, pythia.get_model_chunk
TO PUBLIC;
GRANT EXECUTE ON PROCEDURE pythia.switch_model TO PUBLIC;

-- Vector indexes: definitions by a view that lets a table's owner write them, the rest by what a role may read.
GRANT SELECT ON pythia.vector_index, pythia.vector_index_version, pythia.vector_index_accuracy, pythia.owned_vector_index,
    pythia.vector_index_newest, pythia.vector_index_status, pythia.catalog_vector_index, pythia.v$vector_index, pythia.v$vector_graph_index,
    pythia.v$vector_partitions_index, pythia.v$vector_memory_pool,
    pythia.vector_index_use, pythia.vector_accuracy_report, pythia.dba_vector_index_accuracy_report
TO PUBLIC;
GRANT INSERT (name, relation, column_name, include_columns, organization, distance, target_accuracy, parameters, parallel),
    UPDATE (name, organization, distance, target_accuracy, parameters, parallel, requested_at), DELETE
    ON pythia.owned_vector_index TO PUBLIC;
GRANT EXECUTE ON FUNCTION
    pythia.define_vector_index, pythia.insert_vector_index, pythia.request_vector_rebuild, pythia.set_vector_index_name, pythia.vector_index_id, pythia.find_vector_index,
    pythia.table_relation, pythia.column_identifier, pythia.check_new_index_name, pythia.check_no_transaction, pythia.has_relation,
    pythia.is_taken, pythia.vector_build_state, pythia.watch_vector_indexes, pythia.vector_organization,
    pythia.remove_orphaned_vector_indexes, pythia.vector_fingerprint, pythia.partition_files,
    pythia.vector_index_journal, pythia.column_list, pythia.check_index_options, pythia.owned_index_id, pythia.find_owned_index,
    pythia.check_rebuilt_index, pythia.whole_number, pythia.refuse_accuracy, pythia.index_status_lines, pythia.stage_name, pythia.check_index_version, pythia.qualified_index_name,
    pythia.measured_accuracy, pythia.accuracy_parameters, pythia.accuracy_sentence, pythia.report_accuracy,
    pythia.vector_failure_code, pythia.raise_build_failure, pythia.race_line, pythia.chosen_organization,
    pythia.vector_memory, pythia.vector_memory_advice, pythia.vector_format_contents, pythia.vector_column_facts, pythia.vector_column_contents, pythia.owned_relation
TO PUBLIC;
GRANT EXECUTE ON PROCEDURE
    pythia.create_vector_index, pythia.rebuild_vector_index, pythia.await_vector_index, pythia.rename_vector_index, pythia.drop_vector_index
TO PUBLIC;

-- Searching: vecsys.nearest_<id> and nearest_many_<id> run as the caller, who needs these; vecsys.candidates_<id> checks the right to SELECT.
GRANT EXECUTE ON FUNCTION
    pythia.vector_index_names, pythia.vector_index_rows, pythia.exact_keys, pythia.may_lack_vectors, pythia.surviving_keys, pythia.filter_plan, pythia.estimate,
    pythia.post_filter_cost, pythia.pre_filter_cost, pythia.in_filter_cost, pythia.judging_is_quick, pythia.neighbors_for, pythia.affordable_neighbors, pythia.ask_again, pythia.check_filter_type,
    pythia.vector_operator, pythia.vector_search, pythia.search_lines, pythia.check_searched_table, pythia.key_sql_type,
    pythia.gathered_candidates, pythia.gathered_keys,
    pythia.query_key(@extschema:vector@.vector), pythia.query_key(@extschema:vector@.halfvec),
    pythia.query_key(@extschema:vector@.sparsevec), pythia.query_key(bit varying),
    pythia.explain_vector_search(integer, text, integer, jsonb, text, jsonb, text),
    pythia.explain_vector_search(integer, @extschema:vector@.vector, integer, jsonb, text, jsonb, text),
    pythia.explain_vector_search(integer, @extschema:vector@.halfvec, integer, jsonb, text, jsonb, text),
    pythia.explain_vector_search(integer, bit varying, integer, jsonb, text, jsonb, text),
    pythia.explain_vector_search(integer, @extschema:vector@.sparsevec, integer, jsonb, text, jsonb, text)
TO PUBLIC;

-- Files: these ask for the right by calling a function that only its holders may execute, or check the readers of a directory.
GRANT EXECUTE ON FUNCTION
    pythia.fetch_directory_file, pythia.fetch_shared_directory_file, pythia.fetch_uri,
    pythia.create_credential, pythia.drop_credential
TO PUBLIC;

-- Folders of the server are for those who may read its files anyway.
GRANT EXECUTE ON FUNCTION
    pythia.fetch_any_directory_file, pythia.fetch_server_file
TO pg_read_server_files;
GRANT EXECUTE ON PROCEDURE pythia.create_directory TO pg_read_server_files;

-- Whoever may load models may call what loading has needed since an upgrade.
DO $$
DECLARE
    loader regrole;
BEGIN
    FOR loader IN
        SELECT a.grantee FROM pg_proc p, aclexplode(p.proacl) AS a
        WHERE p.oid = 'pythia.name_model(bigint, regclass)'::regprocedure AND a.grantee NOT IN (0, p.proowner)
    LOOP
        CALL pythia.grant_create_model(loader);
    END LOOP;
END $$;

-- As the models' owners, who need the rights above.
SELECT pythia.create_missing_detail_views();

-- What is made for each vector index follows its definition's files.
SELECT pythia.follow_table(i.id) FROM pythia.vector_index i JOIN pg_class c ON c.oid = i.relation;
