# make demo   install, run the quickstart, show its Pareto front
# make test   install with what tests need, run the tests but the slow ones (make test-all: these too)
# make check  what CI runs: lint, format, types, layers, tests, at least 90 % of all branches and lines
# make docs   the documentation as a site, in build/site
# make check-lowest   the tests with the lowest versions that pyproject.toml allows, torch aside; takes Python 3.11

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all check check-lowest docs format clean

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

.venv-lowest/installed: pyproject.toml .ci/lowest.txt
	test -d .venv-lowest || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --constraint .ci/lowest.txt --editable ".[test]"
	touch $@

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
	$(BIN)/python -m pytest -n auto -m "not slow" --cov --cov-report=xml:build/coverage.xml

docs: .venv/installed-docs
	$(BIN)/python docs/prepare.py
	$(BIN)/zensical build --strict --clean

# Old libraries warn of newer ones: warnings are no errors here.
check-lowest: .venv-lowest/installed
	.venv-lowest/bin/python -m pytest -n auto -m "not slow" -W default

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .venv-lowest build *.egg-info
