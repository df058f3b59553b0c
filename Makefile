# `make train` and `make test` set everything up by themselves, in .venv.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A file's tests stay in one process, so that what they share is made once.
PARALLEL := --numprocesses=logical --dist=loadfile

.DEFAULT_GOAL := help
.PHONY: help setup train test test-slow check format lint types bench bench-loading clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

setup: $(READY)  ## Create .venv and install the pinned versions

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python 3.11-3.13 or run 'make PYTHON=python3.12 $(MAKECMDGOALS)'"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: $(READY)  ## Train CQL on the simulated Pendulum data (under two minutes on two cores)
	$(BIN)/python train.py

test: $(READY)  ## Run the fast tests, one process per core
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: $(READY)  ## Run the tests marked slow
	$(BIN)/python -m pytest $(PARALLEL) -m slow

check: format lint types test  ## Format, lint, types, tests

format: $(READY)
	$(BIN)/ruff format --check .

lint: $(READY)
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

bench: $(READY) .venv-peers/.ready  ## Measure updates per second on this machine, beside d3rlpy
	$(BIN)/python benchmarks/updates.py --d3rlpy .venv-peers/bin/python

bench-loading: $(READY) .venv-peers/.ready  ## Measure loading a million transitions, beside d3rlpy
	$(BIN)/python benchmarks/loading.py --d3rlpy .venv-peers/bin/python

# d3rlpy needs an older gymnasium: a second environment, which finds all else in the first.
.venv-peers/.ready: $(READY)
	$(PYTHON) -m venv .venv-peers
	echo "$(CURDIR)/$$(ls -d $(VENV)/lib/python*/site-packages)" > "$$(ls -d .venv-peers/lib/python*/site-packages)/main.pth"
	.venv-peers/bin/pip install --quiet d3rlpy==2.8.1
	@touch $@

clean:  ## Remove the environment and the caches (outputs/ stays)
	rm -rf $(VENV) .venv-peers .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
