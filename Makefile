# Two commands for a fresh machine: `make demo` and `make test`. Both make .venv first, with pip, against the pins.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# COVERAGE=1 measures and prints it for the fast tests (.ci/run fast does); they take half as long again
COV := $(if $(COVERAGE),--cov --cov-report=term-missing:skip-covered)
.PHONY: setup demo test fast slow test-all lint style types docs lock clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("actmax needs Python 3.11 or newer: make PYTHON=python3.11 setup" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	@# on all cores, else every process may compile 8 s' worth; some packages carry templates that are no Python
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null || true
	touch $@

demo: setup ## the main job on a real model; 4 to 6 minutes on 2 cores, the first time
	$(BIN)/actmax experiment=reproducibility subject=smollm2

test: style ## the fast checks; tests leave a core idle now and then, so the types are checked beside them
	$(MAKE) --no-print-directory --jobs 2 types fast

fast: setup
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto $(COV)

test-all: test slow ## all of them

slow: setup ## the slow ones alone: a real model, whole processes, a wheel in an empty environment
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --numprocesses auto --dist loadfile --durations=30

lint: style types

style: setup # a moment, so that it fails before the rest begins
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache

types: setup
	$(BIN)/basedpyright

docs: setup ## the pages as a site, in site/; broken links fail it
	$(BIN)/python scripts/reference.py --check
	$(BIN)/mkdocs build --strict --quiet --site-dir site

lock: setup ## renews constraints.txt; torch stays at the version named here (docs/design.md says why)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-header --no-annotate --upgrade \
		--constraint constraints.in pyproject.toml --output-file constraints.txt

clean:
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .hypothesis .coverage*
