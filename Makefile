# make run     RELIEF against FedAvg, about three minutes on two cores
# make try     the same in a small world, well under a minute
# make quick   style, types and a few telling tests, while you work
# make test    style, types, tests, doctests
# make slow    the tests that take long, too
# Each makes .venv first. PYTHON=python3.12 picks the interpreter,
# DATA=folder the place of real data, RUNS=folder where results go.

PYTHON ?= python3
VENV ?= .venv
RUNS ?= runs
DATA ?=
BIN := $(VENV)/bin
DATA_FLAG := $(if $(DATA),--data_dir=$(DATA))

# Rules, files, costs, selection and the invariants of one method.
QUICK := imports records resume costs cohort selection windows hostile \
  invariants

.PHONY: run try quick test slow lint clean

run: $(VENV)/installed
	$(BIN)/python -m experiments.compare $(DATA_FLAG) \
	  --config=experiments/configs/compare.py --workdir=$(RUNS)/compare

try: $(VENV)/installed
	$(BIN)/python -m experiments.compare $(DATA_FLAG) \
	  --config=experiments/configs/compare.py:smoke --workdir=$(RUNS)/try

quick: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" \
	  $(QUICK:%=tests/%_test.py)

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"
	$(BIN)/python -m pytest --doctest-modules relief_jax experiments/axes.py experiments/choices.py \
	  experiments/printed.py experiments/tables.py experiments/records.py

slow: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
