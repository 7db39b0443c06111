# Two commands do everything: `make run` and `make test`. Both install what they need into .venv on the first call.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
CONVERT := .venv-convert/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
export HF_HUB_OFFLINE := 1

CLIENTS := build/clients/.installed

.PHONY: help run test check clients unit format models weights secrets image-steps chaos-ledger clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

run: $(INSTALLED)  ## install, start the gateway with two hosted tiers on 127.0.0.1:8080, show a demo (Ctrl-C stops)
	@exec $(BIN)/headgate serve --config headgate.yaml --demo

test: $(INSTALLED)  ## install and run every test
	$(BIN)/pytest -q $(PYTEST)

unit: $(INSTALLED)  ## run the unit tests alone (seconds)
	$(BIN)/pytest -q tests/unit

clients: $(INSTALLED) $(CLIENTS)  ## install clients as published (Node, LangChain, LlamaIndex) into build/clients and try them
	HEADGATE_KEEP_REPORTS=benchmarks/results $(BIN)/pytest -q tests/clients $(PYTEST)

check: $(INSTALLED)  ## lint, format, types and import contracts, as CI runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)  ## format the code and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

models: $(CONVERT)  ## install the conversion environment, for `headgate models convert`
	@echo "ready: headgate models convert DIR --out OUT --precision int4|int8|fp16"

weights: $(CONVERT) $(INSTALLED)  ## train the two bundled models and the router of their pair anew (about an hour)
	rm -rf build/models build/small-int4 build/large-full
	.venv-convert/bin/python -m backends.bundled.train --tier small --out build/models/small
	.venv-convert/bin/python -m backends.bundled.train --tier large --out build/models/large
	.venv-convert/bin/python -P backends/bundled/convert.py build/models/small --out build/small-int4 --precision int4 --group-size 64
	.venv-convert/bin/python -P backends/bundled/convert.py build/models/large --out build/large-full --precision fp16
	rm -rf backends/bundled/small-int4 backends/bundled/large-full
	mv build/small-int4 build/large-full backends/bundled/
	$(BIN)/python -m benchmarks.train_router bundled --collect

secrets:  ## make the keys that docker-compose.yml needs, once, in secrets/
	@umask 077 && mkdir -p secrets && cd secrets && for name in admin_key redis_password grafana_password; do \
	  [ -s $$name ] || { head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' > $$name; chmod 444 $$name; echo made secrets/$$name; }; done

image-steps: $(INSTALLED)  ## run the Dockerfile's steps in a clean folder and serve from it (installs torch; minutes)
	HEADGATE_LAB_IMAGE=1 $(BIN)/pytest -q tests/integration/test_image_steps.py $(PYTEST)

chaos-ledger: $(INSTALLED)  ## a million requests under kills, restarts and wrong clocks; judge the books (minutes)
	$(BIN)/python -m benchmarks.chaos_ledger

$(CLIENTS): tests/clients/package.json tests/clients/requirements.txt
	mkdir -p build/clients
	cp tests/clients/package.json build/clients/
	cd build/clients && npm install --no-package-lock --no-audit --no-fund
	$(PYTHON) -m venv build/clients/venv
	build/clients/venv/bin/python -m pip --disable-pip-version-check install --quiet --only-binary :all: -r tests/clients/requirements.txt
	@touch $@

clean:  ## remove the environments and local state
	rm -rf .venv .venv-convert build var .mypy_cache .ruff_cache .pytest_cache

$(CONVERT): constraints-convert.txt
	$(PYTHON) -m venv .venv-convert
	.venv-convert/bin/python -m pip --disable-pip-version-check install --quiet torch==2.13.0
	.venv-convert/bin/python -m pip --disable-pip-version-check install --quiet --no-deps -r constraints-convert.txt
	@touch $@

# torch goes in first, at its pinned version: a range would bring gigabytes of CUDA packages along.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade -c constraints.txt pip
	$(PIP) -c constraints.txt torch
	$(PIP) -c constraints.txt -e '.[cpu,engine,grpc,dev]'
	@touch $@
