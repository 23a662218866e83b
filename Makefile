.DEFAULT_GOAL := help
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
JOBS ?= 2

help:  ## this text
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.ready  ## virtual environment and system packages for development

$(VENV)/.ready: pyproject.toml .ci/packages
	@sh .ci/packages tests
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/pip install -q --disable-pip-version-check -e . --group dev
	@touch $@

demo:  ## install, bring the quickstart example up, look at it, take it down
	@sh .ci/packages
	@test -x .demo/bin/python || $(PYTHON) -m venv .demo
	@.demo/bin/pip install -q --disable-pip-version-check .
	@PYTHON=$(PYTHON) sh examples/compose/quickstart/demo.sh .demo/bin/orchestra

check: setup  ## ruff, mypy, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check orchestra
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup  ## the whole test suite (needs root)
	$(BIN)/python tests/support/suite.py

test-unit: setup  ## tests that need no root
	$(BIN)/pytest -q -n $(JOBS) tests/unit tests/property tests/conformance

test-integration: setup  ## real containers, networks, cgroups, registries
	$(BIN)/pytest -q tests/integration tests/scenarios

test-vm: setup  ## the cgroup v2 tests in a virtual machine (QEMU)
	sh tests/vm/run.sh

test-faults: setup  ## kill -9 at every step of every command (long)
	ORCHESTRA_FAULTS=all $(BIN)/pytest -q tests/scenarios/test_faults.py

docs: setup  ## make the manual pages; check the documentation: links, commands, the feature table, every example
	$(BIN)/python docs/man.py
	$(BIN)/pytest -q tests/unit/test_docs.py tests/unit/test_man.py

bench: setup  ## figures beside the peers that are installed
	$(BIN)/python bench/run.py
	$(BIN)/python bench/runtime.py
	$(BIN)/python bench/registry.py

.PHONY: help setup demo check test test-unit test-integration test-vm test-faults docs bench
