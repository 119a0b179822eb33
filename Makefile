# Flotilla. `make demo` shows it, `make test` proves it; each makes .venv first. `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/sh
.SUFFIXES:
.DELETE_ON_ERROR:

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
CODE  := agent fleet shared tests docs
# Twice quiet: nothing but errors.
PIP   := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check --no-input
# The programs that some tests use, and the Debian packages that bring them.
NEEDS := mosquitto:mosquitto chromium:chromium systemd-nspawn:systemd-container strace:strace pg_ctlcluster:postgresql age:age zstd:zstd

.PHONY: help venv demo test check fix format lint types docs-check docs bench system-deps lock clean

help:
	@echo 'make demo         the whole story on this machine: publish, roll out, roll back, drift (Ctrl-C ends it)'
	@echo 'make test         all tests, in two processes  (ARGS="-k slots" for some, ARGS="-n 0" in one)'
	@echo 'make check        what CI runs: format, lint, types, docs, tests'
	@echo 'make fix          format and repair what can be repaired'
	@echo 'make bench        one benchmark                (BENCH=startup ARGS=--quick)'
	@echo 'make docs         draw the diagrams in docs/ from the tables in the code, check links'
	@echo 'make system-deps  install mosquitto, chromium, systemd-nspawn, strace and the like where apt-get and root are at hand'
	@echo 'make lock         renew requirements.lock from pyproject.toml'
	@echo 'make venv         only the environment;  make clean removes it'

venv: $(STAMP)

# requirements.lock holds every package with its hashes; pip's own configuration decides where they come from.
$(STAMP): requirements.lock pyproject.toml
	@for python in "$(PYTHON)" python3 python3.14 python3.13 python3.12 python3.11; do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; python=; \
	done; \
	if [ -z "$$python" ]; then \
	  echo 'error: Flotilla needs Python 3.11 or newer, and none was found.' >&2; \
	  echo '  try   install one (Debian: apt-get install python3 python3-venv), or: make $(MAKECMDGOALS) PYTHON=/path/to/python' >&2; exit 1; \
	elif ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "error: $$python cannot make virtual environments." >&2; \
	  echo '  try   apt-get install python3-venv   (or: make system-deps)' >&2; exit 1; \
	fi; \
	echo "making $(VENV) with $$("$$python" -V) (a few minutes the first time)" >&2; \
	test -x $(BIN)/python || "$$python" -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --editable .
	@touch $@

demo: $(STAMP)
	@$(BIN)/flotilla demo $(ARGS)

# In two processes where there are two processors. Compiled modules are kept: hundreds of processes start (ADR 37).
test: $(STAMP)
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

# Tests come last, so that their closing line is the last line.
check: format lint types docs-check
	@$(MAKE) --no-print-directory test

format: $(STAMP)
	@$(BIN)/ruff format --quiet --check $(CODE) || { echo 'error: not formatted; try  make fix' >&2; exit 1; }

lint: $(STAMP)
	@$(BIN)/ruff check --quiet $(CODE)

types: $(STAMP)
	@$(BIN)/mypy --no-error-summary

docs-check: $(STAMP)
	@$(BIN)/python docs/build.py --check

docs: $(STAMP)
	@$(BIN)/python docs/build.py

fix: $(STAMP)
	@$(BIN)/ruff check --quiet --fix $(CODE) || true
	@$(BIN)/ruff format --quiet $(CODE)
	@$(BIN)/ruff check --quiet $(CODE)

bench: $(STAMP)
	@test -n "$(BENCH)" || { echo 'error: which one?' >&2; echo '  try   make bench BENCH=startup' >&2; exit 2; }
	@$(BIN)/python -m tests.bench.$(BENCH) $(ARGS)

# Everything works without these; the tests that need one are skipped by name when it is missing.
system-deps:
	@missing=; for need in $(NEEDS); do \
	  PATH="$$PATH:/usr/sbin" command -v "$${need%%:*}" >/dev/null || missing="$$missing $${need##*:}"; \
	done; \
	for python in "$(PYTHON)" python3 python3.14 python3.13 python3.12 python3.11; do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	    { "$$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; break; }; \
	done; \
	if [ -z "$$missing" ]; then echo 'system-deps: nothing is missing' >&2; \
	elif ! command -v apt-get >/dev/null || [ "$$(id -u)" != 0 ]; then \
	  echo "system-deps: missing:$$missing; install them yourself (this needs apt-get and root)" >&2; \
	else \
	  echo "system-deps: installing$$missing with apt-get" >&2; \
	  apt-get update -qq || true; \
	  for package in $$missing; do \
	    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$$package" >/dev/null || \
	      echo "system-deps: $$package could not be installed; tests that need it are skipped" >&2; \
	  done; \
	fi

# uv resolves for every platform at once and writes names, versions and hashes, but no hosts.
lock:
	@command -v uv >/dev/null || { echo 'error: this needs uv' >&2; echo '  try   pip install uv' >&2; exit 1; }
	uv pip compile --quiet --universal --generate-hashes --no-header \
	  --python-version 3.11 --extra test --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis dist
