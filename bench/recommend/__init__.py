"""The recommender, measured: what it learns, how fast, in how much memory, and how fast it scores in SQL: `make bench-recommend`."""
