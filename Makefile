# make demo   the whole pipeline on skelgap-mini: videos -> table and report. Offline but for the package registry.
# make test   every test but the slow ones, a worker a core
# Both set up .venv from nothing.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
# Versions that were tested together; pip takes no others.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint setup clean

demo: setup
	@$(BIN)/posebridge doctor --dataset skelgap-mini --recipe refined --recipe gt
	@PATH="$(CURDIR)/$(BIN):$$PATH" dvc repro
	@$(BIN)/posebridge report

test: setup
	@# Whole files go to workers, in the order of tests/conftest.py, so that what tests of a file share is made once.
	@$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile --no-loadscope-reorder

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/mypy

setup: $(VENV)/installed
	@# DVC takes the project for one without git, so that a plain copy works, of a clone that was set up, too; a clone knows better.
	@if ! git rev-parse --git-dir >/dev/null 2>&1; then \
	  if grep -qs no_scm .dvc/config.local; then $(BIN)/dvc config --local --unset core.no_scm; fi; \
	elif [ -e .git ] && ! grep -qs no_scm .dvc/config.local; then $(BIN)/dvc config --local core.no_scm false; fi

$(VENV)/installed: pyproject.toml constraints.txt requirements-mm.txt
	@python=""; \
	for candidate in python3.11 python3.12 python3.13 python3; do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; \
	  then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo "Python 3.11, 3.12 or 3.13 with venv is needed; install one and try again." >&2; exit 1; fi; \
	echo "Setting up $(VENV) with $$python (a few minutes)." >&2; \
	"$$python" -m venv $(VENV)
	@$(PIP) --editable '.[cpu,dev]'
	@# Without their own requirements, which do not build on a current Python; pyproject.toml lists what they really need.
	@$(PIP) --no-deps --requirement requirements-mm.txt
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
