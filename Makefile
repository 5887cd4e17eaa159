# Two commands: `make demo` and `make test`. Everything is installed into .venv from requirements.lock.
SHELL := /bin/bash
PYTHON ?= python3
PY := .venv/bin/python
STAY ?= 1
# The lock names all, so that pip need not search; its second pass adds what only another build of a package needs, as torch's for CUDA.
# pip compiles one file after another; compileall takes all cores, and passes over the few files of packages that are no Python.
INSTALL := $(PY) -m pip install --quiet --no-compile
COMPILE := $(PY) -m compileall -qq -j 0 .venv/lib discovery >/dev/null || true
# hnswlib compiles with -march=native unless told otherwise; such a wheel dies on another CPU.
export HNSWLIB_NO_NATIVE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help demo test check lint unit live setup setup-dev browser up bench lock clean

help:            ## this list
	@grep -E '^[a-z-]+: .*##' Makefile | sed -E 's/:.*##/\t/' | expand -t 18

demo: setup      ## Airflow, MLflow and the whole chain on real pictures (STAY=0 stops after the summary)
	@$(PY) -m demo --stay $(STAY)

test: setup-dev browser  ## lint, types, import contracts and every test
	@$(MAKE) --no-print-directory lint
	$(PY) -m pytest -n 2 --dist loadfile

lint: setup-dev  ## ruff, mypy, import contracts
	$(PY) -m ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports --no-cache

unit: setup-dev  ## the tests that start no servers (the usual local loop)
	$(PY) -m pytest -n 2 --dist loadfile -m "not live"

up: setup        ## Airflow, MLflow and Dask in the foreground, without the demo
	@$(PY) -m discovery.airflow.launcher

setup: .venv/.installed-run
setup-dev: .venv/.installed-dev

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.installed-run: requirements.lock pyproject.toml | .venv/bin/python
	@echo "Installing into .venv (a few minutes the first time) …"
	$(INSTALL) --no-deps --requirement requirements.lock
	$(INSTALL) --requirement requirements.lock
	$(INSTALL) --no-deps --editable .
	@$(COMPILE)
	@touch $@

.venv/.installed-dev: requirements-dev.lock .venv/.installed-run
	$(INSTALL) --requirement requirements-dev.lock
	@$(COMPILE)
	@touch $@

browser:         # Debian's Chromium for the page tests; without root they are skipped, with the reason, but never in CI
	@bash tests/install_browser.sh

lock:            ## write both lock files anew from pyproject.toml
	@bash requirements.sh

clean:           ## remove what the demo and the tests made; .venv stays
	rm -rf .demo .discovery .pytest_cache .mypy_cache .ruff_cache .hypothesis
