"""`python -m pythiadb.cli` is `pythia`."""

from __future__ import annotations

from pythiadb.cli import main

if __name__ == "__main__":
    main(prog_name="pythia")
