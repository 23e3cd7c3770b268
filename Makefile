# netd: what a newcomer types. `make` alone lists it.

# on two processors four take two minutes less, and leave little room to what has to be well within a second
WORKERS ?= 3

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## install what is missing and make .venv
	@scripts/setup

demo: setup ## watch containers find each other by name (KEEP=1 leaves it running)
	@KEEP=$(KEEP) scripts/demo

lab: ## watch containers of several hosts talk while a host and the store's leader die
	@scripts/setup lab
	@scripts/lab

test: ## the whole suite; as root, in namespaces of its own (ARGS="-k dns" for a part)
	@scripts/setup test
	@PYTHONDONTWRITEBYTECODE= .venv/bin/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup ## ruff, mypy --strict, import-linter
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: ## netd beside a real Docker engine, both over the API
	@scripts/setup bench
	@PYTHONDONTWRITEBYTECODE= .venv/bin/python -m bench $(ARGS)

clean: ## remove what these commands made here, .venv included
	rm -rf .venv build .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup demo lab test lint bench clean
