# Everything here sets up what it needs: `make serve` and `make test` work on a fresh machine with
# Python 3.11 or newer, make and a C compiler. The stamps in .venv make a second run start at once.

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 7071
# Further arguments for the command that a target runs: make serve ARGS=--ephemeral
ARGS ?=
# A make that this command starts, as packaging and tests do, has its own.
unexport ARGS
MAKEOVERRIDES :=
# The saved benchmark run that bench-save writes and bench-compare reads.
NAME ?= saved

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Continuous integration installs the versions that were last seen to work together.
CONSTRAINTS := $(if $(CI),--constraint requirements.lock)
# Without what Cython makes of the binding.
KERNELS := $(filter-out native/_native.c,$(wildcard native/*.c native/*.h))
# C programs that tests run.
C_TESTS := $(wildcard tests/native_checks/*.c)
SOURCES := pow tests benchmarks examples infra function_app.py setup.py

.PHONY: serve test test-native install bench bench-peers bench-save bench-compare saved-run lint format ui \
    wheel wheel-aarch64 package lock clean
.DEFAULT_GOAL := install

serve: install
	@exec $(BIN)/pow-mcp serve --host $(HOST) --port $(PORT) $(ARGS)

test: install $(VENV)/.test
	$(BIN)/python -m pytest $(ARGS)

# The kernels under sanitizers, valgrind and emulated processors, and the module's disassembly: some minutes.
test-native: install $(VENV)/.test
	$(BIN)/python -m pytest tests/native_checks $(ARGS)

install: $(VENV)/.native

bench: install $(VENV)/.bench
	@mkdir -p .benchmarks
	@# Quiet: pytest-benchmark's own table shows the seconds of a round, which mean nothing here.
	$(BIN)/python -m pytest benchmarks --benchmark-quiet --benchmark-json=.benchmarks/latest.json $(ARGS)

# The other solvers that the benchmarks measure against; without them they are skipped.
bench-peers: install $(VENV)/.peers
	@command -v npm >/dev/null || { echo "npm is not installed, so @mcaptcha/pow-wasm is left out" >&2; exit 1; }
	npm install --prefix .benchmarks/npm --no-audit --no-fund @mcaptcha/pow-wasm@0.1.0-rc2

# Keeps the latest run, for bench-compare: make bench-save NAME=before
bench-save:
	@test -f .benchmarks/latest.json || { echo "nothing to save: run make bench first" >&2; exit 1; }
	cp .benchmarks/latest.json .benchmarks/$(NAME).json

# Runs the benchmarks, and shows what has changed since a saved run: make bench-compare NAME=before
bench-compare: saved-run bench
	@$(BIN)/python -m benchmarks.compare_runs .benchmarks/$(NAME).json .benchmarks/latest.json

saved-run:
	@test -f .benchmarks/$(NAME).json || \
	    { echo "no saved run .benchmarks/$(NAME).json: run make bench and make bench-save first" >&2; exit 1; }

lint: install $(VENV)/.test $(VENV)/.bench $(VENV)/.lint
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	@# It finds pycodestyle by the path only.
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint native/_native.pyx
	$(BIN)/clang-format --dry-run --Werror $(KERNELS) $(C_TESTS)

format: $(VENV)/.lint
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/clang-format -i $(KERNELS) $(C_TESTS)

# The wheel that is given to others: on Linux, one for manylinux_2_28.
wheel: $(VENV)/.wheel
	@echo "Building the wheel"
	@$(BIN)/python infra/wheels/build_wheel.py $(ARGS)

# The same for Linux on aarch64, compiled here.
wheel-aarch64: $(VENV)/.wheel $(VENV)/.cross
	@echo "Building the wheel for aarch64"
	@$(BIN)/python infra/wheels/build_wheel.py --processor aarch64 $(ARGS)

# The folder that `azd` deploys: the function app with the wheel and all that it depends on.
package: $(VENV)/.build
	@$(BIN)/python infra/hooks/prepackage.py $(ARGS)

# Builds the pages in pow/ui from their sources; needs Node 20.19 or newer.
ui:
	npm ci --prefix ui --no-audit --no-fund
	npm run build --prefix ui

# Writes down the versions that are installed now, for continuous integration.
lock: lint
	$(BIN)/python -m pip --disable-pip-version-check freeze --exclude-editable > requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info native/_native.c pow/*.so pow/*.pyd .benchmarks .browser ui/node_modules
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.build: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "pow-mcp needs Python 3.11 or newer, and $(PYTHON) is older: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Making the virtual environment $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@# pip 25.1 was the first to install dependency groups.
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install $(CONSTRAINTS) --group build
	@touch $@

# The package itself, editable, with the extension built in place.
$(VENV)/.native: $(VENV)/.build setup.py native/_native.pyx $(KERNELS)
	@echo "Installing pow-mcp into $(VENV)"
	@# setuptools warns of every editable installation; what setup.py itself has to say still shows.
	@PYTHONWARNINGS=ignore $(PIP) install $(CONSTRAINTS) --no-build-isolation --editable .
	@$(BIN)/pow-mcp --version
	@touch $@

$(VENV)/.test $(VENV)/.bench $(VENV)/.peers $(VENV)/.lint $(VENV)/.wheel $(VENV)/.cross: $(VENV)/.%: $(VENV)/.build
	@$(PIP) install $(CONSTRAINTS) --group $*
	@touch $@
