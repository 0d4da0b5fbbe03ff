# make demo [DATA=path]   install and run the main job      make test   lint, types, contracts, tests, docs
# make bench              speed and quality as ratios, against other libraries
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
DATA ?=
OUT ?= demo-out

.PHONY: demo test lint types unit docs bench clean

$(VENV)/.core: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	@touch $@

$(STAMP): $(VENV)/.core
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test,lint,docs]'
	@touch $@

demo: $(VENV)/.core
	$(BIN)/firstlight demo $(if $(DATA),"$(DATA)") -o "$(OUT)"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell *.md docs src tests bench scripts
	$(BIN)/lint-imports
	$(BIN)/deptry .

types: $(STAMP)
	$(BIN)/mypy

unit: $(STAMP)
	$(BIN)/python -m pytest -n 2

docs: $(STAMP)
	$(BIN)/python docs/reference.py --check
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

test: lint types unit docs

bench: $(STAMP)
	$(BIN)/python bench/denoise.py
	$(BIN)/python bench/transfer.py

clean:
	rm -rf $(VENV) docs/_build demo-out
