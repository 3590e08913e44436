# Everything runs in .venv, which is made once and again when what it is made from changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers
BENCH := HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q
FULL := $(addprefix benchmarks/bench_,sweep.py memorization.py one_pass.py accuracy.py evaluate.py \
  cluster.py)
SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.h') CMakeLists.txt setup.py

.PHONY: demo test search faults bench bench-full bench-tables gpu sanitize-gpu kernels lint format \
  sanitize sanitize-short \
  fuzz fuzz-native fuzz-python compilers clean

demo: $(READY)
	$(BIN)/pythia-fast demo

test: $(READY)
	$(BIN)/python -m pytest

# What `make test` tries with inputs that are the same in every run, with new ones. It fails only where
# something is wrong; run it again and again.
search: $(READY)
	$(BIN)/python -m pytest -q -m hypothesis --hypothesis-profile search

# Every write, fsync, rename and network call of a small sweep fails once; two hundred kills; a
# longer soak. A quarter of an hour.
faults: $(READY)
	$(BIN)/python -m pytest -q -s tests/faults --long

# MACHINE names the results' files; the processor's name by default. Nothing else should be running.
# A quarter of an hour at most on two cores.
bench: $(PEERS)
	$(BENCH) benchmarks --save-results $(MACHINE)

# The form in which the targets are stated, and nothing else: some 50 minutes. benchmarks/README.md
# says how to measure a part of it.
bench-full: $(PEERS)
	$(BENCH) $(FULL) --effort full --save-results $(MACHINE)

# Where there is a GPU: what only one shows, then everything that is asked of it, in 8 minutes, also if a
# test fails. What is compiled ahead of time needs no GPU: `make kernels`. GPU_PYTHON
# is a Python with a torch for CUDA, this package's other needs, transformers and pytest.
GPU_PYTHON ?= $(BIN)/python
NEEDED := $(if $(filter $(BIN)/python,$(GPU_PYTHON)),$(READY))
gpu: $(NEEDED)
	PYTHONPATH=$(CURDIR) $(GPU_PYTHON) -m pytest -q tests/gpu tests/kernels/gpu \
	  --ignore tests/kernels/gpu/test_ahead_of_time.py; tested=$$?; \
	PYTHONPATH=$(CURDIR) $(GPU_PYTHON) benchmarks/gpu.py && exit $$tested

# Every Triton kernel in small, odd shapes under NVIDIA's memory checker, each tensor an allocation of its own.
SANITIZER ?= compute-sanitizer
TOOL ?= memcheck
sanitize-gpu: $(NEEDED)
	PYTHONPATH=$(CURDIR) PYTORCH_NO_CUDA_MEMORY_CACHING=1 $(SANITIZER) --tool $(TOOL) \
	  --error-exitcode 9 $(GPU_PYTHON) tests/gpu/small_cases.py

# The tables in benchmarks/README.md, from the results.
bench-tables: $(READY)
	$(BIN)/python benchmarks/tables.py

# Every Triton kernel compiled for every chip here, and what it needs there: no GPU needed, some minutes.
kernels: $(READY)
	$(BIN)/python -m pytest -q --long tests/kernels/gpu/test_ahead_of_time.py
	PYTHONPATH=$(CURDIR) $(BIN)/python tests/kernels/gpu/resources.py

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	find csrc -name '*.cpp' -o -name '*.h' | xargs $(BIN)/clang-format --dry-run --Werror

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	find csrc -name '*.cpp' -o -name '*.h' | xargs $(BIN)/clang-format -i

# The compiled module with both sanitizers, under the tests that call it: some minutes of compiling,
# then some more of testing, or in the short form one.
SANITIZED := build/sanitize
sanitize: CHECKED := tests/core tests/tokens tests/kernels
sanitize-short: CHECKED := tests/kernels \
  $(patsubst %,tests/tokens/%.py,test_index test_lazy_index test_gather test_shards order/test_building) \
  -k '(cpu and not bits) or tokens'
sanitize sanitize-short: $(READY)
	$(BIN)/cmake -S . -B $(SANITIZED) -G Ninja -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python \
	  -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DPYTHIA_FAST_SANITIZE=ON \
	  -DPYTHIA_FAST_WERROR=ON -DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$(CURDIR)/$(SANITIZED)/out
	$(BIN)/cmake --build $(SANITIZED)
	rm -rf $(SANITIZED)/pythia_fast && cp -r pythia_fast $(SANITIZED)/
	cp $(SANITIZED)/out/_core*.so $(SANITIZED)/pythia_fast/
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so) \
	  $$(g++ -print-file-name=libstdc++.so.6)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1 OMP_NUM_THREADS=1 \
	  PYTHONSAFEPATH=1 PYTHONPATH=$(SANITIZED) \
	  $(BIN)/python -m pytest -q -p no:cacheprovider $(CHECKED)

# Any bytes as a file of each format: a minute for each parser, FUZZ_S seconds to be exact. The native
# one under both sanitizers, with clang.
FUZZED := build/fuzz
FUZZ_S ?= 60
fuzz: fuzz-native fuzz-python

fuzz-native: $(READY)
	CXX=clang++ $(BIN)/cmake -S . -B $(FUZZED) -G Ninja \
	  -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python \
	  -DPYTHIA_FAST_WERROR=ON -DPYTHIA_FAST_FUZZ=ON
	$(BIN)/cmake --build $(FUZZED) --target fuzz_token_index
	$(BIN)/python csrc/fuzz/seeds.py $(FUZZED)/seeds && mkdir -p $(FUZZED)/corpus
	$(FUZZED)/fuzz_token_index -max_total_time=$(FUZZ_S) -max_len=4096 -print_final_stats=1 \
	  $(FUZZED)/corpus $(FUZZED)/seeds

fuzz-python: $(READY)
	$(BIN)/python -m pytest -q -s tests/fuzz --fuzz-seconds $(FUZZ_S)

# Every compiler that is promised, warnings being errors; name others with COMPILERS="g++-13 …".
COMPILERS ?= g++ clang++
compilers: $(READY)
	for compiler in $(COMPILERS); do \
	  rm -rf build/$$compiler && \
	  CXX=$$compiler $(BIN)/cmake -S . -B build/$$compiler -G Ninja \
	    -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja \
	    -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python -DPYTHIA_FAST_WERROR=ON && \
	  $(BIN)/cmake --build build/$$compiler || exit 1; \
	done

$(PEERS): $(READY)
	$(BIN)/pip install -q -c constraints.txt transformer-lens
	touch $(PEERS)

clean:
	rm -rf build dist $(VENV) pythia_fast/*.so *.egg-info

$(READY): pyproject.toml constraints.txt $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt setuptools pybind11 cmake ninja torch
	PATH="$(CURDIR)/$(BIN):$$PATH" CMAKE_ARGS="-DPYTHIA_FAST_WERROR=ON" \
	  $(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[test,lint]'
	touch $(READY)
