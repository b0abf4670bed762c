# Everything here sets up what it needs in .venv first; all it wants is make and Python 3.11 or newer.

.DEFAULT_GOAL := help
.PHONY: help demo test lint proof docs format dist image clean

VENV := .venv
SITE := build/site
PORT ?= 8000
ARGS ?=

# onnxruntime comes for the CPU or for CUDA, never both: the two overwrite each other's files.
ifndef EXTRA
EXTRA := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
endif
OTHER := $(if $(filter gpu,$(EXTRA)),cpu,gpu)
OTHER_RUNTIME := $(if $(filter gpu,$(EXTRA)),onnxruntime,onnxruntime-gpu)

CANDIDATES := $(or $(PYTHON),python3.13 python3.12 python3.11 python3)
RUN := $(VENV)/run-$(EXTRA)
DEV := $(VENV)/dev-$(EXTRA)
CPU_RUNTIME = $(shell sed -n 's/^cpu = \["\(.*\)"\]$$/\1/p' pyproject.toml)
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' relume/__init__.py)
NONE_CHOSEN := $(if $(ARGS),|| [ $$? -eq 5 ])
EACH_CORE := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist loadfile

help:
	@echo "make demo   convert the example network, serve it, classify the example pictures"
	@echo "make test   run the tests; ARGS='-k name' chooses"
	@echo "make proof  run the long tests"
	@echo "make lint   check style and types"
	@echo "make docs   build the documentation as a site, in $(SITE)"
	@echo "make format lay the code out"
	@echo "make dist   build and check what a release consists of, into dist/"
	@echo "make image  build the container image, labelled with version and revision"
	@echo "make clean  remove $(VENV) and what tools left behind"
	@echo
	@echo "variables: PYTHON=python3.12  EXTRA=cpu|gpu (here: $(EXTRA))  PORT=$(PORT)"

demo: $(RUN)
	@$(VENV)/bin/python examples/demo.py --port $(PORT) $(ARGS)

test: $(DEV)
	$(EACH_CORE) -m "not slow and not dist" $(ARGS)

proof: $(DEV)
	failed=0; \
	$(EACH_CORE) -m "slow and not quiet" $(ARGS) $(NONE_CHOSEN) || failed=1; \
	$(VENV)/bin/python -m pytest -m "slow and quiet" $(ARGS) $(NONE_CHOSEN) || failed=1; \
	exit $$failed

lint: $(DEV)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

# The variable silences a notice about MkDocs 2, which pyproject.toml excludes. Not --quiet: warnings
# that MkDocs does not print do not stop it.
docs: $(DEV)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --site-dir $(SITE)
	@echo "to read it: python3 -m http.server --directory $(SITE)"

format: $(DEV)
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

# The same commit gives the same wheel: its files have the commit's time, not the clock's.
dist: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
dist: $(DEV)
	rm -rf build dist
	$(VENV)/bin/python -m build
	$(VENV)/bin/twine check --strict dist/*
	$(INSTALLED)
	$(VENV)/bin/cyclonedx-py environment --output-reproducible \
		-o dist/relume-$(VERSION).cdx.json build/installed
	$(VENV)/bin/python -m pytest -m dist tests/test_distribution.py $(ARGS)
	cd dist && sha256sum relume-* > SHA256SUMS

# What the serving image installs and what `relume inspect` reads and shows with, but no torch, which
# alone is larger than all of the rest.
define INSTALLED
$(VENV)/bin/python -m venv build/installed
build/installed/bin/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
build/installed/bin/python -m pip install --quiet --no-deps --no-index --find-links dist relume
build/installed/bin/python -m pip install --quiet --group serve "$(CPU_RUNTIME)" safetensors rich
endef

image:
	docker build --target serve --tag relume:$(VERSION) --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$(shell git rev-parse HEAD) $(ARGS) .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/made:
	@for python in $(CANDIDATES); do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "creating $(VENV) with $$python, $$($$python --version)"; \
			$$python -m venv --clear $(VENV) && touch $@; \
			exit; \
		fi; \
	done; \
	echo "error: found no Python 3.11 or newer (tried: $(CANDIDATES)):" \
		"install one, or say where it is: make PYTHON=/path/to/python3" >&2; \
	exit 1

$(RUN): $(VENV)/made pyproject.toml
	$(call install,$(EXTRA))

$(DEV): $(VENV)/made pyproject.toml
	$(call install,$(EXTRA)$(,)dev)
	@touch $(RUN)

, := ,
define install
@echo "installing relume [$(1)] into $(VENV); the first time this takes some minutes"
@if [ -e $(VENV)/run-$(OTHER) ]; then \
	$(VENV)/bin/python -m pip uninstall --yes $(OTHER_RUNTIME) && \
	rm -f $(VENV)/run-$(OTHER) $(VENV)/dev-$(OTHER); \
fi
@$(VENV)/bin/python -m pip install --disable-pip-version-check --editable ".[$(1)]"
@touch $@
endef
