# Everything that a person runs here starts with `make`; each target installs what it needs into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: up demo test check format mutations bench bench-quick storm test-compose audit lock clean

up: $(VENV)/.local
	@exec $(BIN)/python -m local

demo: $(VENV)/.demo
	@exec $(BIN)/python -m demo $(ARGS)

# Tests mostly wait. Each process has servers of its own.
test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses 3 --dist worksteal $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/unit/test_kubernetes.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

mutations: $(VENV)/.dev
	$(BIN)/python -m tests.mutations $(ARGS)

bench: $(VENV)/.dev
	$(BIN)/python -m bench $(ARGS)

bench-quick: $(VENV)/.dev
	$(BIN)/python -m bench --quick

test-compose: $(VENV)/.dev
	$(BIN)/python -m tests.compose

audit: $(VENV)/bin/python
	$(BIN)/python -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	$(VENV)/audit/bin/pip-audit --no-deps --disable-pip --requirement requirements.txt

# The images install these and nothing else: the same pins, with the hash of every file of each.
lock: $(VENV)/bin/python
	$(BIN)/python -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	for name in requirements requirements/dashboard; do \
	    $(VENV)/lock/bin/uv pip compile --quiet --upgrade --no-deps --generate-hashes --no-annotate --no-header \
	        --python-version 3.13 --output-file requirements/$$(basename $$name)-hashed.txt $$name.txt || exit 1; \
	done

storm: $(VENV)/.dev
	$(BIN)/python -m tests.storm $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .schemathesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.local: requirements.txt requirements/dashboard.txt requirements/local.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/local.txt
	@touch $@

$(VENV)/.demo: requirements/demo.txt $(VENV)/.local
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/demo.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	@touch $@
