# 'make demo' (chest radiographs), 'make demo-ct' (chest CT) and 'make test' do everything on a fresh machine with Python
# 3.11-3.13 and make; the others are for developers.
# Variables: PYTHON=python3.12 picks the interpreter, CORES=4 limits the demo, PYTEST_ARGS=... goes to pytest,
# DETECTRON2_SPEC=... installs another detectron2, TORCH_INDEX=... another build of PyTorch (see envs/bootstrap.py).

SHELL := /bin/bash
PYTHON ?= python3
CORES ?= all
PYTEST_ARGS ?=
BIN := .venv/bin
SUMMARY := results/cxr/summarize/summary.md
CT_SUMMARY := results/ct/summarize_ct/summary.md
# Of a summary its tables and their headings, "Stage ..."; legend, counts and places stay in the file.
TABLES := awk -v RS= -v ORS='\n\n' '/^\||^Stage/; \
  END { printf "Synthetic data: nothing about patients. Legend and counts: %s\n", FILENAME }'
WITH_ENV := PATH="$(CURDIR)/$(BIN):$$PATH"
# A process for each core; a test keeps to one thread. In one process: PYTEST_ARGS="-n 0".
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --color=no -n logical --maxprocesses 4 --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-ct test test-slow envs docs constraints clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Begin with 'make demo'; docs/getting-started.md goes on from there. CORES=4 behind it takes four cores, not all;"
	@echo "PYTHON=python3.12 picks the interpreter of set-up, PYTEST_ARGS='-k word' what is tested."

setup: ## make .venv with everything in it (about 7 GB); all others begin with it, a finished one is left alone
	@command -v $(PYTHON) >/dev/null || { echo "[setup] stopped: $(PYTHON) is not on PATH." >&2; \
	  echo "[setup] remedy: apt-get install python3 python3-venv, or name one: make PYTHON=python3.12 setup." >&2; exit 2; }
	@$(PYTHON) envs/bootstrap.py

demo: setup ## run the whole workflow for chest radiographs on drawn images; ends with the result table and the gallery
	@echo "About 3 to 5 minutes on two fast cores, 12 on older ones, most of it in two trainings; what is there already is not made again."
	@$(WITH_ENV) $(BIN)/snakemake --logger d2rnet --cores $(CORES)
	@echo; $(TABLES) $(SUMMARY)
	@echo "Radiographs, boxes and reports side by side: open results/cxr/render_gallery/index.html in a browser"

demo-ct: setup ## run the whole workflow for chest CT on drawn volumes; ends with the result tables and the gallery
	@echo "About 6 to 9 minutes on two fast cores, most of it in two trainings; what is there already is not made again."
	@$(WITH_ENV) $(BIN)/snakemake ct --logger d2rnet --cores $(CORES)
	@echo; $(TABLES) $(CT_SUMMARY)
	@echo "Slices and reports side by side: open results/ct/render_ct_gallery/index.html in a browser"

test: setup ## run the test suite on all cores
	@$(WITH_ENV) $(PYTEST) --durations=10 $(PYTEST_ARGS)

test-slow: setup ## run everything, the tests that take minutes to hours as well (fault battery, SLURM)
	@$(WITH_ENV) $(PYTEST) --durations=10 -m "slow or not slow" $(PYTEST_ARGS)

envs: setup ## write envs/<rule>.yaml from the extras of pyproject.toml
	@$(WITH_ENV) $(BIN)/python envs/generate.py

docs: setup ## write the generated pages and the rule graph (docs/generate.py)
	@$(WITH_ENV) $(BIN)/python docs/generate.py

constraints: setup ## write the versions in .venv to envs/constraints.txt; pins of what is not in it stay
	@$(WITH_ENV) $(BIN)/python envs/generate.py --constraints

clean: ## remove caches; results stay (remove those with 'snakemake --delete-all-output --cores 1')
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find src tests envs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
