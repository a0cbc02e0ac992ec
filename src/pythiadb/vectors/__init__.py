"""Vector formats: text and binary codecs of the types that PostgreSQL stores, and Oracle's text forms."""
