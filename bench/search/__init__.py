"""Vector search through SQL beside pgvector, other libraries and the bare limit: `make bench-search`."""
