# make run     RELIEF against FedAvg, about three minutes on two cores
# make try     three methods in a small world, in half a minute
# make quick   style, types and a few telling tests, while you work
# make test    style, types, tests, doctests
# make slow    the tests that take long, too
# make docs    the site, into site/; a broken link fails it
# Each makes .venv first. PYTHON=python3.12 picks the interpreter,
# DATA=folder the place of real data, RUNS=folder where results go, WORKERS=2
# how many processes run tests.

PYTHON ?= python3
VENV ?= .venv
RUNS ?= runs
DATA ?=
# Processes of tests: one per core, each of some 3 GB.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 8 ? n : 8)))
BIN := $(VENV)/bin
# Comes with '.[dev]', however that was installed.
INSTALLED := $(BIN)/mypy
DATA_FLAG := $(if $(DATA),--data_dir=$(DATA))

# Rules, files, costs, selection, means and the invariants of one method.
QUICK := imports_test.py costs_test.py rounds/cohort_test.py \
  budgets/elastic_test.py updates/transform_test.py aggregation/mean_test.py \
  datasets/windows_test.py storage/records_test.py \
  storage/resume_test.py faults/hostile_test.py contract/invariants_test.py

.PHONY: run try quick test slow docs lint clean

run: $(INSTALLED)
	$(BIN)/python -m experiments.compare $(DATA_FLAG) \
	  --config=experiments/configs/compare.py --workdir=$(RUNS)/compare

try: $(INSTALLED)
	$(BIN)/python -m relief_jax.cli.main try --workdir=$(RUNS)/try

quick: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" --durations=5 \
	  $(QUICK:%=tests/%)

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" --durations=15 \
	  --doctest-modules relief_jax tests

slow: $(INSTALLED)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow --durations=15

docs: $(VENV)/docs
	$(BIN)/python -m mkdocs build --strict --quiet

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(INSTALLED): setup.cfg setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

$(VENV)/docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) site
