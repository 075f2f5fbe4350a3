# Each target sets itself up: .venv is made on first use, and filled again when pyproject.toml or constraints.txt change.
# Needs only Python >= 3.11 with venv and pip:   make demo        or, for another interpreter:   make demo PYTHON=python3.12

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
DEMO_ARGS ?=
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
ALL_READY := $(VENV)/.ready-all
DEV_READY := $(VENV)/.ready-dev
REQUIREMENTS := pyproject.toml constraints.txt
# One thread a worker: PyTorch in several processes with several threads each is slower than this on a small machine.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo smoke test check format bench schemas

help: ## Show this list
	@echo "GastroVL: research software, not a medical device. Targets:"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(ALL_READY) ## The whole pipeline on drawn images; result in runs/demo/index.html
	$(BIN)/gastrovl demo -o runs/demo $(DEMO_ARGS)

smoke: $(ALL_READY) ## The demo at its smallest size: shows that every stage runs, not that it learns
	$(BIN)/gastrovl demo --smoke -o runs/smoke --overwrite

test: $(DEV_READY) ## All tests: offline, seeded, warnings are errors
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

check: $(DEV_READY) ## Format, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(ONE_THREAD) $(BIN)/python -m pytest tests/test_architecture.py

format: $(DEV_READY) ## Rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(ALL_READY) ## Run every script in benchmarks/
	@set -e; for script in $(sort $(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python "$$script"; done

schemas: $(ALL_READY) ## Write the JSON schemas of records and results to docs/reference/schemas
	$(BIN)/python -m gastrovl.core.records docs/reference/schemas
	$(BIN)/python -c 'from gastrovl.evaluation.results import write_schema; print(write_schema("docs/reference/schemas"))'
	$(BIN)/python -c 'from gastrovl.evaluation.judging.judged import write_schema; print(write_schema("docs/reference/schemas"))'
	$(BIN)/python -c 'from gastrovl.evaluation.comparing.comparison import write_schema; print(write_schema("docs/reference/schemas"))'
	$(BIN)/python -c 'from gastrovl.evaluation.robustness.record import write_schema; print(write_schema("docs/reference/schemas"))'

define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
	  "GastroVL needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile $(PIP_ARGS) -c constraints.txt -e '.[$(1)]'
endef

$(ALL_READY): $(REQUIREMENTS)
	$(call install,all)
	@touch $@

$(DEV_READY): $(REQUIREMENTS)
	$(call install,dev)
	@touch $(ALL_READY) $@
