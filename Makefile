# Two commands: `make run` and `make test`. Both set up first whatever is missing.
# Needs Python 3.11 to 3.13 and make. Everything else comes from package registries, into folders of this directory
# and ~/.cache/omium.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
UV_VERSION := 0.13.9
VENV := .venv
TOOLS := .venv-tools
UV := $(TOOLS)/bin/uv
BIN := $(VENV)/bin
STAMP := $(VENV)/omium-setup.stamp
TEST_WORKERS ?= 2
SEEDS ?= 2000

.DEFAULT_GOAL := help
.PHONY: help setup run test sim chaos check lock clean

help: ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP) ## Set up the virtual environment and all that `up` needs
	@$(BIN)/python -m ops.embedded.setup

$(UV):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v < (3, 14))' 2>/dev/null \
	  || { echo "setup: Python 3.11, 3.12 or 3.13 is needed; name it with make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "setup: $(PYTHON) has no venv module; install it (Debian: apt install python3-venv)" >&2; exit 1; }
	@echo "setup: tools …"
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/bin/python: | $(UV)
	@$(PYTHON) -m venv --without-pip $(VENV)

$(STAMP): requirements.lock pyproject.toml | $(UV) $(VENV)/bin/python
	@echo "setup: packages (about a minute, once) …"
	@$(UV) pip sync --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock \
	  > $(TOOLS)/sync.log 2>&1 || { cat $(TOOLS)/sync.log >&2; exit 1; }
	@$(UV) pip install --python $(BIN)/python --quiet --no-deps -e .
	@touch $@

run: setup ## Start everything, run the demo, stay up until Ctrl-C
	@exec $(BIN)/omiumctl demo

test: setup ## Run 2,000 seeds of the simulation, then all tests against real servers
	$(BIN)/python tests/simulation/run.py --seeds $(SEEDS)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile

sim: setup ## Run the deterministic simulation: make sim SEEDS=20000
	$(BIN)/python tests/simulation/run.py --seeds $(SEEDS)

chaos: setup ## Kill every part at every event boundary of an execution (about an hour)
	$(BIN)/omiumctl chaos

check: setup ## Run linters, type checkers, the layer rules and the schema check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/omiumctl schemas check
	$(BIN)/python -m pytest -q tests/unit/test_compose.py

lock: $(UV) ## Resolve the dependencies anew into requirements.lock
	$(UV) lock
	$(UV) export --quiet --frozen --all-extras --all-groups --no-emit-project -o requirements.lock

clean: ## Remove the virtual environments and caches; data (.omium) stays
	rm -rf $(VENV) .venv-triton $(TOOLS) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
