"""PythiaDB: ONNX models, embeddings and vector search inside PostgreSQL, called from SQL."""
