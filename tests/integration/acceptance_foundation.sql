-- (1) foundation ------------------------------------------------------------------------------------------------------
CREATE TABLE product  (id NUMBER PRIMARY KEY, name VARCHAR2(60) NOT NULL, category VARCHAR2(30));
CREATE TABLE customer (id NUMBER PRIMARY KEY, name VARCHAR2(60), city VARCHAR2(40));
CREATE TABLE IF NOT EXISTS incident (
  id NUMBER, product_id NUMBER, customer_id NUMBER, severity NUMBER(1), filed DATE DEFAULT SYSDATE, description CLOB,
  embedding VECTOR(384, FLOAT32),
  CONSTRAINT incident_pk PRIMARY KEY (id),
  CONSTRAINT incident_product_fk FOREIGN KEY (product_id) REFERENCES product (id));
INSERT INTO product VALUES (1, 'Aero 14', 'laptop');
INSERT INTO product VALUES (2, 'Tower X', 'desktop');
INSERT INTO customer VALUES (7, 'Taller Jalisco', 'Guadalajara');
INSERT INTO incident (id, product_id, customer_id, severity, description)
  SELECT 1, 1, 7, 1, 'The notebook restarts by itself a few minutes after the fan spins up' FROM dual;
UPDATE incident SET embedding = VECTOR_EMBEDDING(minilm USING description AS data) WHERE embedding IS NULL;
INSERT INTO incident (id, product_id, customer_id, severity, filed, description, embedding)
  SELECT 2, 2, 7, 3, SYSDATE - 2, d, VECTOR_EMBEDDING(minilm USING d AS data)
  FROM (SELECT 'Screen stays black when the machine is switched on' AS d FROM dual);
COMMIT;
CREATE TABLE incident_copy AS SELECT id, VECTOR_EMBEDDING(minilm USING description AS data) AS v FROM incident;
SELECT VECTOR_EMBEDDING(minilm USING 'why does my laptop keep rebooting' AS data) AS v FROM dual;
SELECT id FROM incident ORDER BY VECTOR_DISTANCE(embedding, VECTOR_EMBEDDING(minilm USING :q AS data), COSINE) FETCH FIRST 10 ROWS ONLY;
SELECT id, description FROM incident WHERE filed > SYSDATE - 7
  ORDER BY VECTOR_DISTANCE(embedding, VECTOR_EMBEDDING(minilm USING :q AS data), COSINE) FETCH FIRST 10 ROWS ONLY;
SELECT i.id, c.name, VECTOR_DISTANCE(i.embedding, VECTOR_EMBEDDING(minilm USING :q AS data), COSINE) AS distance
  FROM incident i JOIN product p ON p.id = i.product_id JOIN customer c ON c.id = i.customer_id
  WHERE p.category = 'laptop' AND c.city = 'Guadalajara'
  ORDER BY distance FETCH FIRST 10 ROWS ONLY;
SELECT VECTOR_DISTANCE('[1, 2, 3]', TO_VECTOR('[3, 2, 1]'), EUCLIDEAN), VECTOR_DIMS(TO_VECTOR('[1,2,3]')), FROM_VECTOR(TO_VECTOR('[1,2,3]')) FROM dual;
SELECT AVG(embedding), COUNT(*) FROM incident GROUP BY product_id;
SELECT model_name, mining_function, algorithm, model_size FROM user_mining_models;

