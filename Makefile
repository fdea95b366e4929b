# Everything here sets up what it needs: a virtual environment in .venv, and what the tests need in a cache folder.
PYTHON ?= python3
BIN := .venv/bin
MANAGER ?= process
LABS := systemd or prometheus or upstream or e2e or browser

.PHONY: help demo test test-fast test-all check lint types bench pictures format clean
help: ## show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --editable . --group dev
	@touch $@

demo: .venv/.ready ## one node dies of old age and is brought back, before your eyes (MANAGER=systemd: in a container, as root)
	@$(BIN)/python -m tests.demo --manager $(MANAGER)

test: .venv/.ready ## all tests; what needs a lab that cannot be had is skipped, with the reason
	$(BIN)/pytest --numprocesses auto -m "not ($(LABS))"
	$(BIN)/pytest --numprocesses auto --dist loadfile -m "$(LABS)"

test-fast: .venv/.ready ## the tests that need no lab and do not take their time
	$(BIN)/pytest -q --numprocesses auto -m "not (slow or $(LABS))"

test-all: .venv/.ready ## all tests, those whole that `test` samples
	EXHAUSTIVE=1 $(MAKE) test

lint: .venv/.ready ## lint and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/.ready ## types
	$(BIN)/mypy

check: lint types test ## what has to pass before anything is merged

bench: .venv/.ready ## figures, as ratios measured in one run
	@$(BIN)/python -m tests.bench

pictures: .venv/.ready ## the pictures of the README, made anew
	@$(BIN)/python -m tests.pictures

format: .venv/.ready ## put the code in shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove what make has made here
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
