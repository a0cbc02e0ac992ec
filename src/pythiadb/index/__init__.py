"""Vector indexes as files: immutable, memory-mapped segments and the versions made of them. Knows no database and no engine."""
