# Two commands do all the set-up: `make demo` and `make test`. Each is idempotent: what is there is not made again.
#   make demo [SEED=n]   install, fetch the default model and the documents, answer two questions
#   make test            set up what is missing, then lint, types, floors and the test suite
#   make test-slow       fuzzing, crash loops, sanitizers
#   make bench           all benchmarks, quick; `make bench BENCH="decode --json"` for one
#   make lint            style, types and floors only

PYTHON ?= python3
VENV ?= .venv
SEED ?= 1
BENCH ?=
PYTEST ?=
# Processes that share the tests, which mostly wait for programs that they start: two, where there is memory for them.
WORKERS ?= $(shell awk '/^MemAvailable/ {print 1 + ($$2 > 8e6)}' /proc/meminfo 2>/dev/null || echo 1)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
MODELS := qwen2.5-coder-0.5b all-minilm-l6-v2
TEST_MODELS := smollm2-135m $(MODELS)
SENSES := whisper-tiny.en kokoro-82m efficientnet-lite0
# A change in any of these means a new installation; everything else is picked up as it is (editable).
BUILT_FROM := pyproject.toml $(wildcard setup.py drivers/cpu/*.cc drivers/cpu/*.h drivers/cpu/build.py)

LIBRARY := drivers/cpu/_build/libllmos_cpu.so

# Debian's packages that apps stand on: the interpreter's walls; a browser, a voice, a sound device, music. Where they may
# not be installed by whoever runs make, the apps that need them say which and how.
WALLS := bubblewrap libseccomp2
OUTSIDE := $(WALLS) chromium chromium-headless-shell espeak-ng libportaudio2 fluidsynth fluidr3mono-gm-soundfont \
  fonts-dejavu-core
packages = command -v apt-get >/dev/null || exit 0; \
  missing=$$(for p in $(1); do dpkg -s $$p >/dev/null 2>&1 || printf '%s ' $$p; done); \
  test -n "$$missing" || exit 0; \
  test $$(id -u) = 0 || { echo "some apps need: sudo apt-get install $$missing"; exit 0; }; \
  echo "installing $$missing"; export DEBIAN_FRONTEND=noninteractive; \
  get="apt-get install -qq -y --no-install-recommends"; \
  { apt-get update -qq; $$get $$missing; } >/dev/null 2>&1 || \
    for p in $$missing; do $$get $$p >/dev/null 2>&1 || echo "no $$p: what needs it will say so"; done

# What failed is run once more, by itself: other work on a machine can make what takes its time late.
tested = $(BIN)/python -m pytest -n $(WORKERS) --dist $(1) $(2) || { echo "what failed is run once more, by itself"; \
  $(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(2); }

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-slow bench lint clean install walls outside

help:
	@sed -n '2,6s/^# *//p' Makefile

# Without a compiler the installation succeeds all the same; with one that came later, the library is built now.
install: $(VENV)/.installed
	@test -e $(LIBRARY) || ! command -v g++ >/dev/null || $(BIN)/python -m llmos.drivers.cpu.build || true
	@test -e $(LIBRARY) || echo "no CPU kernels, the slower pure-JAX path will run: apt-get install g++, then again"

$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "llmos needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "no virtual environment: apt-get install python3-venv"; exit 1; }
	@touch $@

# The build runs inside the environment (no isolation): the library is compiled against the jaxlib it will run with.
$(VENV)/.installed: $(VENV)/.venv $(BUILT_FROM)
	@echo "installing llmos into $(VENV) (the first time a few minutes: jax, flax, faiss ...)"
	@$(PIP) install --quiet 'setuptools>=77' wheel 'jaxlib>=0.10,<0.11'
	@$(PIP) install --quiet --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing the tools for tests"
	@$(PIP) install --quiet --no-build-isolation -e '.[dev]'
	@touch $@

# By name and in isolation: llama-cpp-python is built by a tool of its own, which our environment does not have.
$(VENV)/.installed-bench: $(VENV)/.installed
	@echo "installing llama-cpp-python for comparison (compiles for about 8 minutes)"
	@$(BIN)/python -c "import tomllib; \
	    print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['bench'])" | \
	  xargs -n 1 $(PIP) install --quiet || \
	  echo "llama-cpp-python did not install: the benchmarks run without the comparison"
	@touch $@

walls:
	@$(call packages,$(WALLS))

outside:
	@$(call packages,$(OUTSIDE))

demo: install walls
	@$(BIN)/llmos models pull $(MODELS)
	@$(BIN)/python -m examples.demo --seed $(SEED)

lint: install $(VENV)/.installed-dev
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

test: lint outside
	@$(BIN)/llmos models pull $(TEST_MODELS)
	@$(BIN)/llmos models pull $(SENSES) || echo "eyes, ears and voice are tested as far as their models are here"
	@$(call tested,loadfile,$(PYTEST))

test-slow: install $(VENV)/.installed-dev outside
	@$(BIN)/llmos models pull $(TEST_MODELS)
	@$(BIN)/llmos models pull $(SENSES) || echo "eyes, ears and voice are tested as far as their models are here"
	@$(call tested,worksteal,-m slow --timeout 1800 $(PYTEST))

bench: install $(VENV)/.installed-bench
	@$(BIN)/llmos models pull $(TEST_MODELS)
	@$(BIN)/python -m benchmarks $(or $(BENCH),all --quick)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
