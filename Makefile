# `make sample` and `make test` need nothing but Python 3.11+ (PYTHON= chooses it). They make an environment in .venv;
# an active virtual environment is used as it is.
PYTHON ?= python3
# Processes that share the tests, file by file; each computes with one thread.
JOBS ?= 2
ifdef VIRTUAL_ENV
ENV := $(VIRTUAL_ENV)
else
ENV := .venv
endif
BIN := $(ENV)/bin
BASE := $(ENV)/.hastezoo-base
DEV := $(ENV)/.hastezoo-dev

.PHONY: sample test browser lint documents clean

sample: $(BASE)
	$(BIN)/python -m hastezoo sample -n 10 $(foreach class,0 1 2 3 4 5 6 7 8 9,--class $(class)) --trajectory
	$(BIN)/python -m hastezoo sample --model mmdit-ti-emoji-haste --prompt "red apple" --prompt "cat face" \
		--prompt "red heart" --prompt "flag: France" --prompt "smiling cat face" --prompt "crying dog face" \
		--prompt "purple star" --prompt "blue apple"

test: $(DEV) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

# The app in a real browser; it needs chromium (Debian: apt-get install chromium).
browser: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m browser tests/webapp

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The tables of checkpoints in README.md and MODEL_CARD.md, from the cards.
documents: $(BASE)
	$(BIN)/python -m hastezoo.zoo.documents

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache outputs screenshots

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'hastezoo needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.12'; exit 1; }
	$(PYTHON) -m venv $(ENV)

$(BASE): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	touch $@

$(DEV): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@ $(BASE)
