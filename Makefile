# On a fresh machine two commands do everything: make quickstart, make test.
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export TOKENIZERS_PARALLELISM := false

.PHONY: quickstart test test-all check figures clean

quickstart: $(STAMP)  ## Prepare two corpora, pre-train, shift with and without replay, and show what was forgotten.
	$(BIN)/python examples/quickstart.py

test: $(STAMP)  ## The fast set: embedded data only.
	$(BIN)/python -m pytest

test-all: $(STAMP)  ## The fast and the slow set; the slow one fetches corpora.
	$(BIN)/python -m pytest -m "not gpu"

check: $(STAMP)  ## Style, types and the arrows between the packages.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

figures: $(STAMP)  ## Draw the pictures of the docs again, from the quickstart's runs.
	$(BIN)/python examples/figures.py

$(STAMP): pyproject.toml setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[all,test,dev]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
