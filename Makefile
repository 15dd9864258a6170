# belljar: `make hello` sets everything up and greets; `make test` checks everything.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
COMPILED := setup.py $(wildcard src/belljar/kvm/_*.p[xy]*) src/belljar/x86/local_apic.py \
    $(shell find src/belljar/soft src/belljar/devices src/belljar/machine -name '*.p[xy]*' ! -name '*.pyc' ! -name _core.py)

.PHONY: hello test lint check soak bench clean

hello: $(STAMP)
	$(BIN)/belljar run hello-long

# The interpreter must be new enough and have its headers: say so before a compiler does, in its own way.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "belljar needs Python 3.11 or later; say which with: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	    { echo "this Python cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig as s; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' || \
	    { echo "the C headers of this Python are missing; on Debian: apt-get install python3-dev" >&2; exit 1; }
	@command -v gcc >/dev/null || { echo "a C compiler is missing; on Debian: apt-get install gcc" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(STAMP): $(VENV)/bin/python pyproject.toml constraints.txt $(COMPILED)
	$(PIP) -c constraints.txt cython mypy setuptools wheel
	$(PIP) -c constraints.txt --no-build-isolation -e '.[dev]'
	$(BIN)/python -m compileall -q src benchmarks
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal -m 'not soak'

test: lint check

# Hours rather than minutes: the million random guests, the long differential runs.
soak: $(STAMP)
	$(BIN)/python -m pytest -m soak --timeout 14400
	$(BIN)/python -m pytest -m 'not soak' --hypothesis-profile searching --timeout 14400 tests

bench: $(STAMP)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src -name '*.so' -delete
