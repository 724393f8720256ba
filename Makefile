.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest

help:  ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The demo's own folder is replaced by every run. With a folder or recipe of yours in ARGS nothing is deleted.
OVERWRITE = $(if $(or $(findstring --output_dir,$(ARGS)),$(findstring --config,$(ARGS))),,--overwrite_output_dir)

train: $(VENV)/.installed  ## install, then train the demo model into outputs/demo; options: ARGS="--max_train_steps 50"
	$(BIN)/python train.py $(OVERWRITE) $(ARGS)

test: $(VENV)/.installed-test  ## install, then run the whole test suite, a process for each core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test-oldest: $(OLDEST)/.installed  ## run the suite on the oldest transformers and huggingface_hub that pyproject.toml admits
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed-dev  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## delete the environments and outputs/
	rm -rf $(VENV) $(OLDEST) outputs

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing PyTorch, transformers and what else pyproject.toml names into $(VENV): 1.8 GB (4 GB more with CUDA), one to five minutes"
	@$(BIN)/pip install --quiet -e . -c constraints.txt
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "installing the packages that the tests need into $(VENV): one to three minutes"
	@$(BIN)/pip install --quiet -e '.[test]' -c constraints.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing the packages of the tests and ruff into $(VENV)"
	@$(BIN)/pip install --quiet -e '.[dev]' -c constraints.txt
	@touch $@

# The pins of constraints.txt but for the packages in constraints-oldest.txt.
$(OLDEST)/.installed: pyproject.toml constraints.txt constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	grep -vE "^($$(sed -n 's/==.*//p' constraints-oldest.txt | paste -sd '|'))==" constraints.txt > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/pip install --quiet -e '.[test]' -c $(OLDEST)/constraints.txt -c constraints-oldest.txt
	@touch $@

.PHONY: help train test test-oldest lint format clean
