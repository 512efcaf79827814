PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all lint clean

# Everything is installed into .venv, again only after pyproject.toml has changed.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e ".[dev]"
	touch $@

# Makes pairs, trains, scores beside SIFT+RANSAC and writes demo/report.html.
demo: .venv/installed
	$(BIN)/segswap-demo --out demo

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: .venv/installed
	$(BIN)/python -m pytest

# The slow tests too.
test-all: .venv/installed
	$(BIN)/python -m pytest -m ""

clean:
	rm -rf .venv demo build dist *.egg-info
