-- Oracle's callers give numbers as NUMBER, and CREATE_CHECKPOINT has other names of its arguments: these are made anew.

DROP PROCEDURE IF EXISTS dbms_vector.create_checkpoint(text, text);
DROP PROCEDURE IF EXISTS dbms_vector.create_index(
    text, text, text, text, text, text, text, integer, jsonb, integer, text, numeric, text, text, boolean);
DROP PROCEDURE IF EXISTS dbms_vector.rebuild_index(
    text, text, text, text, text, text, text, integer, jsonb, integer, text, text, numeric, text, text, boolean, text);
DROP FUNCTION IF EXISTS
    dbms_vector.index_accuracy_query(text, text, text, integer, integer, jsonb),
    dbms_vector.index_accuracy_query(text, text, @extschema:vector@.vector, integer, integer, jsonb),
    dbms_vector.index_accuracy_query(text, text, @extschema:vector@.halfvec, integer, integer, jsonb),
    dbms_vector.index_accuracy_query(text, text, bit varying, integer, integer, jsonb),
    dbms_vector.index_accuracy_query(text, text, @extschema:vector@.sparsevec, integer, integer, jsonb);
