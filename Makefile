# Everything a user or CI runs. `make` alone explains itself.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
# What the demo's scenario is about, of the clauses that have properties; `make laws` verifies all of them.
DEMO_CLAUSES := 0.4 4.1 4.2 4.4 4.5 6.4

.DEFAULT_GOAL := help
.PHONY: help setup demo test live check laws bench peers clean

help:  ## Say what can be made
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## Make .venv with the tested versions (the others call this by themselves)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11 setup")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

demo: setup  ## Run a scenario in virtual time and on real Ray, verify its clauses, write out/demo/report.html
	$(BIN)/hqde-sim run scenarios/minority_third.yaml --on both --out out/demo
	$(BIN)/hqde-sim report out/demo
	$(BIN)/hqde-verify run reference --profile smoke $(DEMO_CLAUSES:%=--clause %)

test: setup  ## Run all tests, live Ray included
	$(BIN)/python -m pytest -n 2

live: setup  ## Run the long fault tests on real processes
	$(BIN)/python -m pytest -n 0 -m live

check: setup  ## Lint, format, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config pyproject.toml

laws: setup  ## Verify the reference against every clause that has properties
	$(BIN)/hqde-verify run reference

bench: setup  ## Measure our kernels beside their peers
	@mkdir -p docs/results
	$(BIN)/python -m benchmarks --json docs/results/benchmarks.json
	$(BIN)/python -m benchmarks.report docs/results/benchmarks.json

peers: setup  ## Install foreign packages, each into an environment of its own under .peers/
	$(BIN)/python -m properties.adapters.install

clean:  ## Remove what make made, except .venv and .peers
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
