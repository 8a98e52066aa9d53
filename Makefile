# Everything happens in .venv, made from requirements.lock; nothing outside this folder changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Where a download breaks off, pip gives up; what was whole by then is in its cache.
thrice = for left in 2 1 0; do $(1) && break; [ $$left -gt 0 ] || exit 1; echo "again, $$left tries left" >&2; sleep 5; done

.PHONY: quickstart install test fast thorough lint types imports docs check lock clean

quickstart: $(STAMP)
	$(BIN)/embank quickstart --dir quickstart

# What pytest makes of the tests to say more of a failure is kept, also where Python is told to keep nothing it compiles.
test fast thorough: export PYTHONDONTWRITEBYTECODE =

# About a quarter of an hour on two cores: every assertion, but not for every value.
test: $(STAMP)
	$(BIN)/python -m pytest -m "not thorough" --numprocesses=auto --dist=worksteal

# Less than two minutes on two cores: every subject, but for the tests that are marked slow.
fast: $(STAMP)
	$(BIN)/python -m pytest -m "not slow and not thorough" --numprocesses=auto --dist=worksteal

# Everything, and more examples of what hypothesis draws.
thorough: $(STAMP)
	$(BIN)/python -m pytest --hypothesis-profile=thorough --numprocesses=auto --dist=worksteal

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "embank needs Python 3.11 or later; this is $$($(PYTHON) --version). Use: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(call thrice,$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

# Into build/docs; a warning ends it. Nothing is fetched.
docs: $(STAMP)
	$(BIN)/python -m tests.docs_check
	$(BIN)/python -m sphinx -W --keep-going -n -q docs build/docs

check: lint types imports docs

# What the images of docker/ install beyond the dependencies.
IMAGE := --no-annotate --extra dask --extra timm --extra dicom --extra s3

# Needs uv; writes versions and hashes, never an address. The images' versions are those that the tests run with.
lock:
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
		--extra cpu --extra dask --extra test --custom-compile-command "make lock" --quiet -o requirements.lock
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
		--extra gpu --extra rapids --extra dask --extra test --custom-compile-command "make lock" --quiet -o requirements-gpu.lock
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes $(IMAGE) --extra cpu \
		--constraint requirements.lock --custom-compile-command "make lock" --quiet -o docker/cpu.lock
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes $(IMAGE) --extra gpu --extra rapids \
		--constraint requirements-gpu.lock --custom-compile-command "make lock" --quiet -o docker/cuda.lock

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
