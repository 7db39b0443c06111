# Two commands do everything: `make run` and `make test`. Both install what they need into .venv on the first call.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
CONVERT := .venv-convert/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
export HF_HUB_OFFLINE := 1

.PHONY: help run test check unit format models weights clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

run: $(INSTALLED)  ## install, start the gateway with two hosted tiers on 127.0.0.1:8080, show a demo (Ctrl-C stops)
	@exec $(BIN)/headgate serve --config headgate.yaml --demo

test: $(INSTALLED)  ## install and run every test
	$(BIN)/pytest -q $(PYTEST)

unit: $(INSTALLED)  ## run the unit tests alone (seconds)
	$(BIN)/pytest -q tests/unit

check: $(INSTALLED)  ## lint, format, types and import contracts, as CI runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)  ## format the code and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environments and local state
	rm -rf .venv .venv-convert var .mypy_cache .ruff_cache .pytest_cache

# torch goes in first, at its pinned version: a range would bring gigabytes of CUDA packages along.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade -c constraints.txt pip
	$(PIP) -c constraints.txt torch
	$(PIP) -c constraints.txt -e '.[cpu,engine,dev]'
	@touch $@
