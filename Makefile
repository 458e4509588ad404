# Every target sets itself up from a bare checkout: Python 3.11, 3.12 or 3.13 and make are all it needs.
#   make demo                   the whole journey on real weights and rows, then a report and the command to chat
#   make demo DEMO=--quick      a small version of a few minutes; DEMO takes any option of `fairlead demo`
#   make fetch                  set up and bring the starter weights and rows, run nothing
#   make demo TORCH_INDEX=URL   take torch from this extra index (the CPU one of PyTorch's install page saves 3 GB)
#   make test, make check       the tests; linters, types, layers and generated docs
#   make test-full, test-gpu    the slow ones too; those that need a CUDA device
#   make pages                  the pages of `fairlead serve`, from frontend/; an install builds them too
#   make fuzz                   every reader of files fed with broken ones for a minute each, or MINUTES=10
#   make bench, make bench-full fairlead beside its peers, each in an environment of its own: 20 minutes, or all works

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(if $(shell $(p) -c 'import sys; print(1 if (3, 11) <= sys.version_info < (3, 14) else "")' 2>/dev/null),$(p))))
VENV ?= .venv
TORCH_INDEX ?=
DEMO ?=
TESTS ?=
MINUTES ?= 1
READERS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP_OPTIONS := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# Small matrices: more threads than workers only wait for each other.
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 MPLBACKEND=Agg

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full test-gpu check fetch docs pages built fuzz bench bench-full clean lock resolve

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 was found" >&2; \
	  echo "fix: install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || why="$$($(PYTHON) -m venv $(VENV) 2>&1)" || { rm -rf $(VENV); \
	  echo "error: $(PYTHON) cannot make a virtual environment: $$why" >&2; \
	  echo "fix: install its venv module (Debian, Ubuntu: apt install python3-venv), or name another Python" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25' || echo "pip stays as it is"
	@$(BIN)/python scripts/warn_big_torch.py "$(or $(firstword $(MAKECMDGOALS)),setup)" $(PIP_OPTIONS)
	$(BIN)/python -m pip install --quiet -c constraints.txt $(PIP_OPTIONS) -e '.[dev]'
	@touch $@

demo: fetch
	$(BIN)/fairlead demo $(DEMO)

fetch: $(STAMP)
	$(BIN)/fairlead fetch

test: fetch built
	$(TEST_ENV) $(BIN)/python -m pytest -n auto -m "not slow and not gpu" $(TESTS)

test-full: fetch built
	$(TEST_ENV) $(BIN)/python -m pytest -m "not gpu" $(TESTS)

test-gpu: $(STAMP)
	$(TEST_ENV) $(BIN)/python -m pytest -m gpu $(TESTS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

docs: $(STAMP)
	$(BIN)/python docs/generate.py

pages: $(STAMP)
	$(BIN)/python hatch_build.py

built: $(STAMP)
	@$(BIN)/python hatch_build.py || echo "tests of the pages are skipped"

# Guided by coverage: atheris lies in a folder of its own and is no dependency. READERS="csv xml" names some of them.
fuzz: $(STAMP)
	@test -d build/fuzz/atheris || $(BIN)/python -m pip install --quiet --no-deps --target build/fuzz atheris==3.0.0
	$(TEST_ENV) PYTHONPATH=build/fuzz $(BIN)/python experiments/fuzz_readers.py $(READERS) --minutes $(MINUTES)

# Ratios to peers on this machine; results go to bench/results/. Use nothing else of the machine meanwhile.
BENCH_ENV := OMP_NUM_THREADS=$(or $(OMP_NUM_THREADS),$(shell nproc 2>/dev/null || echo 2)) HF_HUB_OFFLINE=1
ONE_CORE := OMP_NUM_THREADS=1 RAYON_NUM_THREADS=1
BENCH := $(BENCH_ENV) $(BIN)/python bench/compare.py

bench: fetch
	$(BENCH) --install trl
	$(BENCH) decode rollout sft-packed --alternations 2

bench-full: fetch
	$(BENCH) --install trl
	$(BENCH) --install trl-ppo
	$(BENCH) --install dedup
	$(BENCH) decode rollout sft-packed sft-masters sft-unpacked reward dpo own-reward own-dpo grpo grpo-mixed ppo ppo-mixed
	$(ONE_CORE) $(BIN)/python bench/compare.py dedup dedup-datatrove
	$(ONE_CORE) $(BIN)/python bench/dedup_scale.py
	$(BENCH_ENV) $(BIN)/python bench/memory.py
	$(BENCH_ENV) $(BIN)/python bench/rates.py
	$(BENCH_ENV) $(BIN)/python bench/scaling.py
	$(BENCH_ENV) $(BIN)/python bench/fitting.py

# Locked versions: `lock` resolves anew and writes constraints.txt, `resolve` shows that it holds for 3.12 and 3.13 too.
lock: $(STAMP)
	$(BIN)/python scripts/lock.py

resolve: $(STAMP)
	$(BIN)/python scripts/resolve.py 3.11 3.12 3.13

clean:
	rm -rf $(VENV) build dist frontend/node_modules src/fairlead/web/bundle .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests docs scripts -name __pycache__ -type d -prune -exec rm -rf {} +
