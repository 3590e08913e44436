# Everything runs in .venv, which is made once and again when what it is made from changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.h') CMakeLists.txt setup.py

.PHONY: demo test bench lint format sanitize compilers clean

demo: $(READY)
	$(BIN)/pythia-fast demo

test: $(READY)
	$(BIN)/python -m pytest

bench: $(READY)
	$(BIN)/python -m pytest benchmarks --benchmark-only

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	find csrc -name '*.cpp' -o -name '*.h' | xargs $(BIN)/clang-format --dry-run --Werror

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	find csrc -name '*.cpp' -o -name '*.h' | xargs $(BIN)/clang-format -i

clean:
	rm -rf build dist $(VENV) pythia_fast/*.so *.egg-info

$(READY): pyproject.toml constraints.txt $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt setuptools pybind11 cmake ninja torch
	PATH="$(CURDIR)/$(BIN):$$PATH" CMAKE_ARGS="-DPYTHIA_FAST_WERROR=ON" \
	  $(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[test,lint]'
	touch $(READY)
