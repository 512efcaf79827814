PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all lint clean

# Installed into .venv, again only after pyproject.toml has changed: what the demo needs, and beside
# it what tests and checks need.
.venv/demo-installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e ".[generate,train]"
	touch $@

.venv/installed: .venv/demo-installed
	$(BIN)/pip install --quiet -e ".[dev]"
	touch $@

# Makes pairs, trains, scores beside SIFT+RANSAC and writes demo/report.html.
demo: .venv/demo-installed
	$(BIN)/segswap-demo --out demo

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# In two processes, each with one thread, which takes half the time that one with two does.
test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# The slow tests too; those that start clusters and kill processes one after the other.
CLUSTERS := tests/cluster tests/command
test-all: test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 $(CLUSTERS:%=--ignore=%)
	$(BIN)/python -m pytest -m slow $(CLUSTERS)

clean:
	rm -rf .venv demo build dist *.egg-info
