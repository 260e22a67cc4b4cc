# make demo | make test | make lint | make docs | make bench | make faults      e.g. make test PYTHON=python3.12 WORKERS=4
# make test-extended: the tests that train for minutes
# make test-oldest: every test with the oldest versions that pyproject.toml allows (about 7 GB, an hour)
#                                                                   make bench ARGS="--quick --only step loss/", or ARGS=--large
#                                                                   make faults ARGS="--quick --only P1 D2"
PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
PIP_INSTALL = $(BIN)/pip install --constraint constraints.txt

.PHONY: demo test test-extended test-oldest lint docs bench faults clean

demo: $(VENV)/.installed
	$(BIN)/moco demo

test: $(VENV)/.installed-test
	$(BIN)/python -c "import moco.data.augment.kernels"  # compile once, not in every worker
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "not extended"

test-extended: $(VENV)/.installed-test  # trains what takes minutes: five tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m extended

test-oldest: $(OLDEST)/.installed-test
	NUMBA_CACHE_DIR=$(CURDIR)/$(OLDEST)/numba $(OLDEST)/bin/python -c "import moco.data.augment.kernels"
	NUMBA_CACHE_DIR=$(CURDIR)/$(OLDEST)/numba OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n $(WORKERS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.installed-docs  # writes site/, which works from the disk and from any server
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.installed-bench
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.run $(ARGS)

faults: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 PYTHONPATH=.:tests $(BIN)/python -m tests.faults.matrix --jobs $(WORKERS) $(ARGS)

clean:
	rm -rf $(VENV) $(OLDEST) dist site .pytest_cache .ruff_cache .hypothesis

# A stamp file has the time of the last installation: make installs again only when pyproject.toml or constraints.txt has changed.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP_INSTALL) --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP_INSTALL) --editable ".[test]"
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP_INSTALL) --editable ".[docs]"
	touch $@ $(VENV)/.installed

# Peers that cannot be installed are named in the table; the next call tries again.
$(VENV)/.installed-bench: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP_INSTALL) --editable ".[bench]" && touch $@ || $(PIP_INSTALL) --editable .
	touch $(VENV)/.installed

$(OLDEST)/.installed-test: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --constraint constraints-oldest.txt --editable ".[test]"
	touch $@

$(BIN)/pip:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed: make PYTHON=python3.11 ...')"
	$(PYTHON) -m venv $(VENV)
