EXECUTE DBMS_VECTOR.LOAD_ONNX_MODEL('MODEL_DIR', 'minilm.onnx', 'minilm', JSON('{"function":"embedding","embeddingOutput":"embedding","input":{"input":["DATA"]}}'));
BEGIN DBMS_VECTOR.DROP_ONNX_MODEL(model_name => 'minilm', force => TRUE); END;
DECLARE
  file_name VARCHAR2(100) := 'cf_recommender.onnx';
  model     VARCHAR2(130);
  metadata  CLOB;
BEGIN
  SELECT UPPER(REGEXP_SUBSTR(file_name, '[^.]+')) INTO model FROM dual;
  DBMS_OUTPUT.PUT_LINE('loading ' || model);
  metadata := '{"function": "regression", "input": {"user_input": ["USER_IDX"], "movie_input": ["MOVIE_IDX"]}}';
  BEGIN
    DBMS_DATA_MINING.DROP_MODEL(model);
  EXCEPTION WHEN OTHERS THEN NULL;
  END;
  DBMS_VECTOR.LOAD_ONNX_MODEL_CLOUD(model_name => model, credential => NULL, uri => :base_uri || file_name, metadata => JSON(metadata));
END;
SELECT PREDICTION(cf_recommender USING 0 AS "USER_IDX", 0 AS "MOVIE_IDX") AS predicted_rating FROM dual;
SELECT PREDICTION(churn USING c.*) AS label, PREDICTION_PROBABILITY(churn, 'yes' USING c.*) AS p FROM customer_features c;
SELECT s.* FROM customer_features c, TABLE(PREDICTION_SET(churn, 2 USING c.age AS age, c.visits AS visits)) s;
SELECT CLUSTER_ID(segments USING c.age AS age, c.visits AS visits) AS segment, COUNT(*) FROM customer_features c
  GROUP BY CLUSTER_ID(segments USING c.age AS age, c.visits AS visits);
SELECT d.id, PREDICTION(reranker USING :q AS data1, d.body AS data2) AS relevance FROM documents d ORDER BY relevance DESC FETCH FIRST 5 ROWS ONLY;
SELECT model_name, ROUND(model_size / (1024 * 1024), 1) AS "Size (MB)", external_data, inmemory FROM all_mining_models;
EXECUTE DBMS_VECTOR.INMEMORY_ONNX_MODEL('MINILM');
SELECT address, ROUND(seg_size / (1024 * 1024), 1) AS "Size (MB)", type, populate_status FROM v$im_onnx_segment WHERE name = 'MINILM';
CREATE ROLE vector_role NOT IDENTIFIED;
GRANT CREATE MINING MODEL TO vector_role;
GRANT SELECT ON MINING MODEL minilm TO vector_role;
