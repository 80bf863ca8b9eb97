# Every target makes what it needs. `make` alone explains itself.
PYTHON ?= python3
MINUTES ?= 5
EXAMPLES ?= 500
DATA ?= ../shared/data/lc25000-lung-224
RECIPE ?= training/configs/lung-cnn-1.1.0.toml
RUN ?= runs/cross-validation
ENGINE ?= fake
REPORT ?= runs/chaos
# The next one after the bundled model's: a version never changes.
VERSION ?= 1.2.0
# Much of a test is waiting, so two side by side fit two cores; 0 runs them in one process, as --pdb wants.
TEST_PROCESSES ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes

CHAOS = CHAOS_REPORT="$(REPORT)" CHAOS_ENGINE=$(ENGINE) $(if $(SEED),CHAOS_SEED=$(SEED))

.DEFAULT_GOAL := help
.PHONY: help up test train chaos soak torture fuzz bench bench-api compose-test check fix lock
.DELETE_ON_ERROR:

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(VENV)/local.stamp ## Run the whole system on http://127.0.0.1:5000 (PORT, DATA_DIR); Ctrl-C ends it
	@exec $(BIN)/python -m ops.up .env

test: $(VENV)/dev.stamp ## Run every test, with servers of its own on free ports
	@$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile $(ARGS)

train: $(VENV)/dev.stamp ## Cross-validate, train, score and publish VERSION of a model from DATA (hours; goes on where it stopped)
	$(BIN)/python -m training prepare --data $(DATA) --config $(RECIPE)
	$(BIN)/python -m training train --data $(DATA) --config $(RECIPE) --run $(RUN) --folds 5 --release --leaky
	$(BIN)/python -m training calibrate --data $(DATA) --run $(RUN)
	$(BIN)/python -m training evaluate --data $(DATA) --run $(RUN)
	$(BIN)/python -m training publish --data $(DATA) --run $(RUN) --version $(VERSION)

chaos: $(VENV)/dev.stamp ## Kill, pause and cut everything under load for MINUTES (SEED repeats a run; ENGINE=real)
	@$(CHAOS) CHAOS_FULL=1 CHAOS_SECONDS=$$(( $(MINUTES) * 60 )) $(BIN)/python -m pytest tests/chaos
	@$(CHAOS) $(BIN)/python -m tests.chaos.baseline $$(( $(MINUTES) * 60 )) $(SEED)
	@$(BIN)/python -m tests.chaos.report $(REPORT)

soak: $(VENV)/dev.stamp ## Load without faults for MINUTES; print what grows
	@$(CHAOS) $(BIN)/python -m tests.chaos.soak $$(( $(MINUTES) * 60 ))

torture: $(VENV)/dev.stamp ## Give the upload checks and the engine every mutated image there is (minutes)
	@$(CHAOS) TORTURE_FULL=1 $(BIN)/python -m pytest tests/torture -v

bench: $(VENV)/dev.stamp ## Measure the stack beside its ceiling and its peers (hours; ARGS=--quick for minutes)
	@$(BIN)/python -m benchmarks $(ARGS)

bench-api: $(VENV)/dev.stamp ## Measure what the HTTP API itself costs (REQUESTS for its memory, 100000 unless given)
	@$(BIN)/python -m benchmarks.api_cost $(REQUESTS)

fuzz: $(VENV)/dev.stamp ## Ask the API what nobody thought of: EXAMPLES requests an operation (SEED repeats a run)
	@FUZZ_EXAMPLES=$(EXAMPLES) FUZZ_SEED=$(or $(SEED),$$(date +%s)) $(BIN)/python -m pytest tests/contract/test_schema.py

compose-test: $(VENV)/dev.stamp ## Build, start, harm and end `docker compose up` on the engine of this machine
	@COMPOSE_TESTS=1 $(BIN)/python -m pytest tests/compose -v

check: $(VENV)/dev.stamp ## Check style, types, the direction of imports, and what Kubernetes and Prometheus are given
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=client $(BIN)/lint-imports
	$(BIN)/python -m pytest --quiet tests/unit/test_kubernetes.py tests/unit/test_monitoring.py

fix: $(VENV)/dev.stamp ## Mend what `make check` finds and a tool can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/dev.stamp ## Compile requirements/*.txt from pyproject.toml, with hashes
	UV=$(BIN)/uv sh requirements/lock.sh
	UV=$(abspath $(BIN)/uv) sh benchmarks/peers/lock.sh

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); sys.exit(not ok and "error: expected Python 3.11 to 3.13, found %d.%d; choose one: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

# dev holds all of local, so whichever came last is enough.
$(VENV)/local.stamp: requirements/local.txt | $(VENV)/bin/python
	@echo "installing what the servers need (about 1.5 GB, a minute or two) ..."
	@$(PIP) -r requirements/local.txt
	@$(BIN)/python worker/engine/mnn_library.py
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt | $(VENV)/bin/python
	@echo "installing what the servers and the tests need (about 2 GB, a minute or two) ..."
	@$(PIP) -r requirements/dev.txt
	@$(BIN)/python worker/engine/mnn_library.py
	@touch $@ $(VENV)/local.stamp
