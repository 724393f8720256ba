.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest

help:  ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

train: $(VENV)/.installed  ## install, then train the demo model from a random start into outputs/demo (minutes, on a CPU)
	$(BIN)/accelerate launch train.py

test: $(VENV)/.installed-test  ## install, then run the whole test suite, a process for each core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test-oldest: $(OLDEST)/.installed  ## the same on the oldest transformers and huggingface_hub that pyproject.toml admits
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed-dev  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## delete the environment and what runs have left in outputs/
	rm -rf $(VENV) $(OLDEST) outputs

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -e . -c constraints.txt
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/pip install --quiet -e '.[test]' -c constraints.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet -e '.[dev]' -c constraints.txt
	@touch $@

# The pins of constraints.txt but for the packages in constraints-oldest.txt.
$(OLDEST)/.installed: pyproject.toml constraints.txt constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	grep -vE "^($$(sed -n 's/==.*//p' constraints-oldest.txt | paste -sd '|'))==" constraints.txt > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/pip install --quiet -e '.[test]' -c $(OLDEST)/constraints.txt -c constraints-oldest.txt
	@touch $@

.PHONY: help train test test-oldest lint format clean
