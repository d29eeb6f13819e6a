# Two commands do everything, set-up included: `make demo` and `make test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
KERNELS := $(addprefix core/govbus/,splice.py splice.pxd compiledview.py compiledview.pxd) \
	$(addprefix processors/govbus_processors/,bulk.pyx bulk.pxd keyset.py slicework.py)

.PHONY: help setup demo test lint bench chaos wheel clean

help:  ## Show what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: .venv/ready  ## Create the environment, and install or name what the machine lacks

.venv/ready: scripts/bootstrap pyproject.toml hatch_build.py $(KERNELS)
	PYTHON=$(PYTHON) scripts/bootstrap
	@touch $@

demo: setup  ## Share real data among five departments and check every row (ARGS="--level villages --keep --json")
	$(BIN)/govbus demo $(ARGS)

test: setup  ## Run all tests on a real broker (ARGS="-k name" for some)
	$(BIN)/pytest $(ARGS)

lint: setup  ## Check style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup  ## Measure against peers, side by side in one run (ARGS="exchange --runs 3")
	$(BIN)/python -m bench $(or $(ARGS),all)

chaos: setup  ## Do harm at random to a real bus and judge every delivery (ARGS="--seed 7 --seconds 600")
	PYTHONPATH=tests:. $(BIN)/python -m chaos $(ARGS)

wheel: setup  ## Build the wheel
	$(BIN)/python -m build --wheel --outdir dist .

clean:  ## Remove the environment and everything that was built; data in .govbus stays
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache core/govbus/*.so processors/govbus_processors/*.so
