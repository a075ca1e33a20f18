# Every target sets itself up in .venv and is quick the second time.
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do $$name $(NEW_ENOUGH) && echo $$name && break; done)
VENV := .venv
VENV_LATEST := .venv-latest
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_LONG := $(VENV)/.installed-long
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# What failed runs once more, alone: many tests start processes, and a busy machine is no fault of theirs.
RETRY := $(BIN)/python -m pytest -n 0 --last-failed --last-failed-no-failures none

.PHONY: run demo test test-long test-latest test-gpu bench lint wheel starter screenshots programs memory-grid manual clean

run: $(INSTALLED) ## Open the workbench.
	@$(BIN)/qlora-tui

demo: $(INSTALLED) ## Fine-tune the bundled starter model in 4-bit and show its answers before and after.
	@$(BIN)/qlora-tui demo

test: lint ## Lint, type-check, check the import contracts, run the tests.
	$(BIN)/python -m pytest || $(RETRY)

test-long: $(INSTALLED_LONG) ## The tests that take minutes: twenty kills, every optimizer, the long fuzz run.
	$(BIN)/python -m pytest -m "long and not gpu" --timeout 5400

test-latest: ## The fast tests with the newest versions that pyproject.toml allows, in a separate environment.
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV_LATEST)
	$(VENV_LATEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --editable '.[dev]'
	$(VENV_LATEST)/bin/python -m pip freeze --exclude-editable > $(VENV_LATEST)/versions.txt
	$(VENV_LATEST)/bin/python -m pytest

test-gpu: $(INSTALLED_DEV) ## The tests that need a CUDA device.
	$(BIN)/python -m pytest -m gpu

bench: $(INSTALLED_DEV) ## Measure speed as ratios, side by side in one run.
	$(BIN)/python -m tests.bench

lint: $(INSTALLED_DEV)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

wheel: $(INSTALLED_DEV)
	$(BIN)/python -m build --wheel --no-isolation

starter: $(INSTALLED_DEV) ## Build the starter model and its data again from nothing.
	$(BIN)/python -m qlora_tui.starter.build

screenshots: $(INSTALLED_DEV) ## Draw the pictures of the screens again; look at them.
	$(BIN)/python -m pytest -n 0 -m "long or not long" tests/ui -k snapshots --snapshot-update
	cp 'tests/ui/__snapshots__/test_run_snapshots/test_finished[ember-160x45].svg' qlora_tui/manual/workbench.svg

manual: $(INSTALLED_DEV) ## Write the reference of all settings and the results of chat templates into the manual.
	$(BIN)/python -m tests.settings_reference
	PYTHONPATH=tests $(BIN)/python -m template_matrix

programs: $(INSTALLED_DEV) ## Record the memory of training steps again, for the installed libraries.
	PYTHONHASHSEED=0 $(BIN)/python -m qlora_tui.engine.simulation.generate # transformers iterates over sets

memory-grid: $(INSTALLED_DEV) ## Compare the recorded steps with full dry runs, and store the table.
	@mkdir -p build
	$(BIN)/python -m qlora_tui.engine.simulation.validate build/grid --store

$(BIN)/python:
	@test -n "$(PYTHON)" && $(PYTHON) $(NEW_ENOUGH) \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable .
	@touch $@

$(INSTALLED_DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[dev]'
	@touch $(INSTALLED) $@

$(INSTALLED_LONG): $(INSTALLED_DEV)
	$(PIP) --editable '.[dev,eval]'
	@touch $@

clean:
	rm -rf $(VENV) $(VENV_LATEST) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
