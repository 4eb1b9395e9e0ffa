# Podium: from raw CSV to a rehearsed Kaggle kernel. `make help` lists what there is to do.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

TORCH := torch==2.13.0
VENV := .venv
# The first Python on this machine that Podium supports; override with `make PYTHON=/path/to/python3.12 ...`.
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && { echo $$p; break; }; done)
# The stages say `python`, which is then the environment's.
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" DVC_NO_ANALYTICS=1
# Each process has one thread, a file's tests stay together: they share what is costly to make. In the order of their
# folders, for the files with the fewest tests, which would come last, have the longest.
PYTEST := OMP_NUM_THREADS=1 $(RUN) python -m pytest -q -n logical --dist loadfile --no-loadscope-reorder --durations=10
# What the kernel brings along, because Kaggle's image has other versions; see pipeline/package/wheels.py.
KERNEL_WHEELS := lightgbm narwhals polars polars-runtime-32 safetensors \
	accelerate anyio bitsandbytes h11 httpcore2 httpx2 huggingface-hub peft tokenizers transformers truststore

.PHONY: help setup repro cluster.yaml check new-competition try rate tries profile average rows sources rehearse kernel-faults download \
	publish submit sync-lb compare choose test test-slow lint real bench prune lock

help: ## show this list
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PRESET=cpu DATA=folder       with repro: lay pipeline/presets/cpu.yaml over params.yaml and read that folder"
	@echo "  ARGS=--dry-run               with download, publish, submit, sync-lb: say what would be sent, contact nobody"
	@echo "  JOBS=4                       with repro: that many stages at a time; default: cores by params.yaml's threads"
	@echo "  REFIT=1                      with repro: add one model per member that is trained on every row, holdout included"

setup: $(VENV)/ready ## create .venv with the locked packages (done by the other targets too)

$(VENV)/torch:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or 3.12 not found; install one, or name it: make PYTHON=/path/to/python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@# First and outside the lock: an ordinary machine gets the CUDA build, one that offers a CPU build gets that.
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-compile $(TORCH)
	@touch $@

$(VENV)/ready: $(VENV)/torch requirements.lock
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-compile --no-deps --require-hashes -r requirements.lock
	rm -rf $(VENV)/wheels
	$(VENV)/bin/python -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: -d $(VENV)/wheels \
		$(foreach name,$(KERNEL_WHEELS),$(shell grep -oE '^$(name)==[^ ;]+' requirements.lock))
	@touch $@

repro: setup ## run every stale stage, from raw data to the rehearsed kernel and the report
	@# Where anything is stale it looks at the whole plan first; a mistake in params.yaml is one line there, and DVC would show its own.
	@$(RUN) python -m pipeline.repro "$(PRESET)" "$${DATA-}" "$(REFIT)" "$(JOBS)"
	@echo "open reports/index.html"

cluster.yaml: setup ## write a SkyPilot task that rents NODES=3 machines with GPU=L4:1 each and builds there
	@$(RUN) python -m pipeline.jobs.rent "$(or $(NODES),3)" "$(or $(GPU),L4:1)"

check: setup ## look at the whole plan before anything is trained: files, members, folds, disk, memory
	@$(RUN) python -m pipeline.check

new-competition: setup ## write a first YAML file for the competition in DATA=folder, guessed from its files
	@test -n "$${DATA-}" || { echo "error: DATA: name the folder with the competition's files: make new-competition DATA=folder"; exit 2; }
	@$(RUN) python -m stages.new_competition "$$DATA"

try: setup ## one fold of MEMBER=name on ROWS=1000 rows, by params.yaml as it is now: score, curve, minutes of the whole
	@$(RUN) python -u -m stages.try_member --member "$(MEMBER)" $(if $(FOLD),--fold "$(FOLD)") $(if $(ROWS),--rows "$(ROWS)")

rate: setup ## one fold of MEMBER=name at a ladder of learning rates, on ROWS=1000 rows: a table, a picture, a suggestion
	@$(RUN) python -u -m stages.rate --member "$(MEMBER)" $(if $(FOLD),--fold "$(FOLD)") $(if $(ROWS),--rows "$(ROWS)") $(if $(RATES),--rates "$(RATES)")

average: setup ## the fold models of MEMBER=name averaged into one: its loss on the holdout beside theirs
	@$(RUN) python -u -m stages.average --member "$(MEMBER)"

rows: setup ## a decoder, MODEL=backbone or folder, writes ROWS=100 rows like the training rows into external/NAME
	@$(RUN) python -u -m stages.rows --name "$(NAME)" --model "$(MODEL)" $(if $(ROWS),--rows "$(ROWS)") \
		$(if $(JUDGE),--judge "$(JUDGE)") $(if $(PROMPT),--prompt "$(PROMPT)") $(ARGS)

sources: setup ## what each source of `extra` brings to MEMBER=name: its fold models without it, row by row
	@$(RUN) python -u -m stages.sources --member "$(MEMBER)" $(if $(FOLD),--fold "$(FOLD)")

tries: setup ## what was tried so far, with the settings that were changed
	@$(RUN) python -m stages.try_member --show

profile: setup ## where the time of MEMBER=name goes, on ROWS=1000 rows: tokens, forward, backward, optimiser, operators
	@$(RUN) python -u -m stages.profile_member --member "$(MEMBER)" $(if $(FOLD),--fold "$(FOLD)") $(if $(ROWS),--rows "$(ROWS)")
rehearse: setup ## run the finished kernel as in the scored rerun on ROWS=25000 rows made from train: plan, time, problems
	@$(RUN) python -u -m stages.rehearse --rows $(ROWS)

kernel-faults: setup ## run the finished kernel under every fault that docs/kernel.md lists, before the last day
	@$(RUN) python -u -m pipeline.package.try_faults $(ARGS)

download: setup ## fetch the competition's files from Kaggle
	$(RUN) python -m stages.download $(ARGS)

publish: setup ## bring package and kernel to Kaggle, and wait for the kernel's dress rehearsal
	$(RUN) python -u -m stages.publish $(ARGS)

submit: setup ## submit the published commit, and tag it sub-N
	$(RUN) python -m stages.submit $(ARGS)

sync-lb: setup ## fetch the scores into lb.json and ledger.csv, and tag them lb-N
	$(RUN) python -u -m stages.sync_lb $(ARGS)

compare: setup ## one table of all submitted commits: params, CV, LB
	@$(RUN) python -m stages.compare $(ARGS)

choose: setup ## which two submissions to select, by paired errors and the public score of PUBLIC=0.3 of the test rows
	@$(RUN) python -m stages.choose $(if $(PUBLIC),--public "$(PUBLIC)")

test: setup ## run the tests, a process per core
	$(PYTEST)

test-slow: setup ## run the slow tests too
	$(PYTEST) -m 'not gpu'

lint: setup ## check style, imports and types
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

real: setup ## what pretrained networks bring on real text: MiniLM and SmolLM2 from PyPI; needs ../shared/data, hours
	$(RUN) python -m benchmarks.build.outcomes --networks real --only sst quora sts science_exam arena

bench: setup ## measure speed and honesty; says at its end what it leaves out
	$(RUN) python -m benchmarks.build.data
	$(RUN) python -m benchmarks.build.pipeline
	$(RUN) python -m benchmarks.speed.shapes
	$(RUN) python -m benchmarks.speed.attention
	$(RUN) python -m benchmarks.speed.overhead
	$(RUN) python -m benchmarks.stability.unbalanced --quick
	$(RUN) python -m benchmarks.stack.coverage
	$(RUN) python -m benchmarks.stack.choice
	$(RUN) python -m benchmarks.stack.size
	$(RUN) python -m benchmarks.stack.honesty
	@# These two replay what a finished `make repro` has left here.
	$(RUN) python -m benchmarks.kernel.simulated --run .
	$(RUN) python -m benchmarks.kernel.real --run .
	@# These two need the real votes in ../shared/data/arena_real.
	$(RUN) python -m benchmarks.speed
	$(RUN) python -m benchmarks.speed.padding
	@echo "left out; each is run by its command, in the environment $(VENV):"
	@echo "  python -m benchmarks.build.outcomes                         needs ../shared/data"
	@echo "  python -m benchmarks.build.early --run FOLDER               a finished demo in FOLDER"
	@echo "  python -m benchmarks.build.jobs                             the demo twice; wants a quiet machine"
	@echo "  python -m benchmarks.speed.prefix                           needs ../shared/data/science_exam"
	@echo "  python -m benchmarks.build.history [--data FOLDER]          seven submissions played through"
	@echo "  python -m benchmarks.build.multitask                        hours; needs ../shared/data/cs224n"
	@echo "  python -m benchmarks.stack.teachers                         an hour or so; needs ../shared/data/cs224n"
	@echo "  python -m benchmarks.stability --study guard (or attacks, gentle)   hours; needs ../shared/data/cs224n"
	@echo "  python -m benchmarks.stability.gentle                       many minutes"
	@echo "  python -m benchmarks.gpu                                    needs a CUDA GPU"

prune: setup ## remove what params.yaml no longer names, and cached files of no tagged submission
	$(RUN) python -m pipeline.prune
	$(RUN) dvc gc --workspace --all-tags --force

lock: setup ## resolve requirements.lock anew from pyproject.toml
	$(VENV)/bin/python -m pip install -q uv
	$(VENV)/bin/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --upgrade -q \
		--no-emit-index-url --no-emit-find-links --no-emit-package torch --no-emit-package sympy --no-emit-package mpmath \
		--no-header --no-annotate -o requirements.lock
