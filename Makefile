# On a fresh machine two commands do everything: make quickstart, make test.
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH := .venv-bench
BENCH_VALUATION := .venv-bench-valuation
export TOKENIZERS_PARALLELISM := false
# Threads that wait by spinning bring a busy machine to a crawl: on two cores with one other process, a tenth of the speed.
export GOMP_SPINCOUNT := 1000
# Where this is set, each command and each process of the tests compiles all our modules anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: quickstart quickstart-moe quickstart-valuation quickstart-detect test test-all gpu fuzz kills matrix check package forgetting figures bench bench-start bench-valuation clean

quickstart: $(STAMP)  ## The main jobs on embedded data, one after the other: each package's part can be run alone.
	$(MAKE) --no-print-directory quickstart-moe
	$(MAKE) --no-print-directory quickstart-valuation
	$(MAKE) --no-print-directory quickstart-detect

quickstart-moe: $(STAMP)  ## A language model that shifts from English to code, with and without replay.
	$(BIN)/python examples/quickstart.py

quickstart-valuation: $(STAMP)  ## Six owners, whose data helps?
	$(BIN)/python examples/quickstart_valuation.py

quickstart-detect: $(STAMP)  ## Two detectors, in the wild and under attack, with the language model of quickstart-moe.
	$(BIN)/python examples/quickstart_detect.py

test: $(STAMP)  ## The fast set: embedded data only, commands start warm; at most six minutes on two cores.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-all: $(STAMP)  ## The fast and the slow set, every command started as users start it; the slow one fetches corpora.
	$(BIN)/python -m pytest -m "not gpu" --cold

gpu: $(STAMP)  ## What only a GPU can show, on one device: tests, layers, a step of 1 to 3 B parameters; at most eight minutes.
	$(BIN)/python benchmarks/gpu.py --output build/gpu.json

fuzz: $(STAMP)  ## Files of each of our formats, altered 20,000 times: each is read or refused in a sentence; five minutes.
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzzing.py --mutations 20000 --output build/finds

kills: $(STAMP)  ## Each verb killed where it changes a file, in the middle of a write and at random; and with a full disk there.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not gpu" tests/test_verb_kills.py tests/*/commands/test_*_kills.py

check: $(STAMP) package  ## Style, types, the arrows between the packages, and what is shipped.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict --follow-imports=silent tests/typed_program.py
	$(BIN)/lint-imports

package: $(STAMP)  ## The sdist, the wheel made from it, and what is wrong with them.
	rm -rf build/package
	$(BIN)/uv build --quiet --no-build-isolation --python $(BIN)/python --out-dir build/package .
	$(BIN)/twine check --strict build/package/*.whl build/package/*.tar.gz
	$(BIN)/check-wheel-contents build/package/*.whl

matrix: $(STAMP)  ## The wheel in environments of its bounds: oldest and newest versions, each extra; fetches gigabytes.
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/matrix.py --output docs/results/matrix.json

forgetting: $(STAMP)  ## Replay against none over three seeds, with an interval; about twenty minutes.
	$(BIN)/python examples/forgetting.py

figures: $(STAMP)  ## Draw the pictures of the docs again, from the quickstart's runs.
	$(BIN)/python examples/figures.py

bench: $(BENCH)/.installed  ## Layers, training steps and data streams beside their peers'; writes docs/results/speed.md.
	$(BENCH)/bin/python benchmarks/moe_ffn.py --output docs/results/moe_ffn.json
	$(BENCH)/bin/python benchmarks/train_step.py --output docs/results/train_step.json
	$(BENCH)/bin/python benchmarks/step_profile.py --output docs/results/step_profile.json
	$(BENCH)/bin/python benchmarks/hf_decoder.py --output docs/results/hf_decoder.json
	$(BENCH)/bin/python benchmarks/data_stream.py --output docs/results/data_stream.json
	$(BENCH)/bin/python benchmarks/loop_overhead.py --output docs/results/loop_overhead.json
	$(BENCH)/bin/python benchmarks/report.py docs/results

bench-start: $(BENCH)/.installed  ## CPU seconds of commands before they begin; writes docs/results/start_up.md.
	OMP_NUM_THREADS=1 $(BENCH)/bin/python benchmarks/start_up.py --rounds 3 --warm-up 1 --output docs/results/start_up.json

bench-valuation: $(BENCH_VALUATION)/.installed  ## Search, values and matching pursuit beside their peers; writes docs/results/features.md and omp.md.
	$(BENCH_VALUATION)/bin/python benchmarks/features.py --output docs/results/features.json
	$(BENCH_VALUATION)/bin/python benchmarks/omp.py --rounds 3 --output docs/results/omp.json

$(STAMP): pyproject.toml setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[all,test,dev]"
	touch $@

# litgpt and litdata without their dependencies, see benchmarks/requirements.txt
$(BENCH)/.installed: benchmarks/requirements.txt pyproject.toml constraints.txt
	test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BENCH)/bin/python -m pip install --quiet -c constraints.txt -r benchmarks/requirements.txt
	$(BENCH)/bin/python -m pip install --quiet --no-deps litgpt==0.5.13 litdata==0.2.76 boto3==1.44.8 botocore==1.44.8 s3transfer==0.19.3
	touch $@

$(BENCH_VALUATION)/.installed: benchmarks/requirements-valuation.txt pyproject.toml
	test -x $(BENCH_VALUATION)/bin/python || $(PYTHON) -m venv $(BENCH_VALUATION)
	$(BENCH_VALUATION)/bin/python -m pip install --quiet -r benchmarks/requirements-valuation.txt
	touch $@

clean:
	rm -rf $(VENV) $(BENCH) $(BENCH_VALUATION) build *.egg-info
