.DEFAULT_GOAL := help
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

help:  ## this text
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.ready  ## virtual environment and system packages for development

$(VENV)/.ready: pyproject.toml
	@sh .ci/packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q -e . --group dev
	@touch $@

check: setup  ## ruff, mypy, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check . || true
	$(BIN)/mypy
	$(BIN)/lint-imports

test-unit: setup  ## tests that need no root
	$(BIN)/pytest -q -n 2 tests/unit tests/property tests/conformance

.PHONY: help setup check test-unit
