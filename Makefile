.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SAMPLE ?= sample
RUN ?= runs/quickstart
PYTEST ?=
# One single-threaded test process per core, at most 4 because each loads torch (1 GB).
PARALLEL ?= -n logical --maxprocesses 4 --dist worksteal

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("geocrodino needs Python 3.11 or newer, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

OLDEST := .venv-oldest
# Other packages require torchvision, and each torchvision requires one exact version of torch.
OLDEST_TORCHVISION := 0.24.0

.PHONY: quickstart test reliability test-oldest lint docs fix clean help

quickstart: $(VENV)/.installed ## Set up, then generate a scene, train, predict with each modality and evaluate
	$(BIN)/python pipelines/quickstart.py --scene $(SAMPLE) --out $(RUN)

test: $(VENV)/.installed ## Set up, then run the whole test suite
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST)

reliability: $(VENV)/.installed ## Generate awkward files of every known kind, try them, print the table of docs/reliability.md
	$(BIN)/python -m pytest $(PARALLEL) -m reliability tests

test-oldest: ## Install the lowest versions that pyproject.toml allows into .venv-oldest, then run the tests
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet uv
	$(OLDEST)/bin/uv pip install --python $(OLDEST)/bin/python --resolution lowest-direct --editable '.[dev]' torchvision==$(OLDEST_TORCHVISION)
	$(OLDEST)/bin/python -m pytest $(PARALLEL) $(PYTEST)

lint: $(VENV)/.installed ## Check style, types and import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed ## Check docstrings of public functions, links between pages, and that pages hold the tables of docs/results
	$(BIN)/python docs/check_docstrings.py
	$(BIN)/python docs/check_links.py
	$(BIN)/python docs/assemble_results.py --check

fix: $(VENV)/.installed ## Apply ruff's automatic fixes and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the environment, the sample scene and its run
	rm -rf $(VENV) $(OLDEST) $(SAMPLE) $(RUN)

help: ## Show what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
