# make demo   install, run the quickstart, show its Pareto front
# make test   install with what tests need, run the tests but the slow ones (make test-all: these too)
# make check  what CI runs: lint, format, types, layers, tests
# make docs   the documentation as a site, in build/site

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all check docs format clean

.venv/installed: pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-dev: pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@ .venv/installed

.venv/installed-docs: pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@ .venv/installed

demo: .venv/installed
	$(BIN)/nas search configs/quickstart.yaml --resume
	$(BIN)/nas export runs/quickstart --knee

test: .venv/installed-dev
	$(BIN)/python -m pytest -n auto -m "not slow"

test-all: .venv/installed-dev
	$(BIN)/python -m pytest

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n auto -m "not slow"

docs: .venv/installed-docs
	$(BIN)/python docs/prepare.py
	$(BIN)/zensical build --strict --clean

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build *.egg-info
