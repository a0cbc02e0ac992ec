# Everything sets itself up: Python 3.11+, make and the package registries are enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
MODEL  := .cache/models/all-MiniLM-L6-v2
SEED   ?= 1
PIP    := $(BIN)/pip --disable-pip-version-check --quiet

.PHONY: demo demo-movies test lint format bench bench-embed bench-call bench-start bench-score bench-restart bench-sessions bench-search bench-recommend clean

demo: $(VENV)/.installed $(MODEL)/.complete  ## build demo-data/ and search it
	$(BIN)/python -m examples.demo

demo-movies: $(VENV)/.train $(MODEL)/.complete  ## learn from MovieLens 100k and recommend, in demo-movies/
	$(BIN)/python -m examples.movies

test: $(VENV)/.dev $(MODEL)/.complete  ## run all tests, each file in one of four processes at most
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --randomly-seed $(SEED)

lint: $(VENV)/.dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## rewrite the sources in the agreed style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: bench-call bench-start bench-embed bench-score bench-restart bench-sessions bench-search bench-recommend  ## all measurements; results in bench/results/

bench-embed bench-call bench-start bench-score bench-restart bench-sessions bench-search bench-recommend: $(VENV)/.dev $(MODEL)/.complete
	$(BIN)/python -m bench.$(subst bench-,,$@)

clean:  ## remove what make made, the demos' databases included
	-test -x $(BIN)/pythia && test -d demo-data && $(BIN)/pythia stop --data demo-data
	-test -x $(BIN)/pythia && test -d demo-movies && $(BIN)/pythia stop --data demo-movies/database
	rm -rf $(VENV) .cache demo-data demo-movies bench/results build dist src/*.egg-info

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=/path/to/python3" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt -e .
	touch $@

# Without a GPU, PyTorch's index of builds for processors in PIP_EXTRA_INDEX_URL makes it a tenth of the size.
$(VENV)/.train: $(VENV)/.installed
	$(PIP) install -c constraints.txt -e '.[train]'
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) install -c constraints.txt -e '.[dev]'
	touch $@

$(MODEL)/.complete: tools/fetch_models.py | $(VENV)/.installed
	$(BIN)/python -m tools.fetch_models
	touch $@
