# What there is to run. Everything here is a command of README.md or CONTRIBUTING.md; `make help` lists it.
.DEFAULT_GOAL := help
.PHONY: help install lint test ci slow faults docs docs-serve bench picture

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: ## install ladm and what its tests need into the active environment
	pip install -c constraints.txt -e '.[test]'

lint: ## check style and types: ruff, mypy
	ruff check . && ruff format --check . && mypy

test: ## run the tests, one worker a core
	pytest -n logical --dist loadfile

ci: ## do what CI does: a fresh environment, then lint and test
	.ci/run

slow: ## run the slow tests (an hour or more)
	pytest -m slow

faults: ## run the fault suite (minutes; as root)
	pytest -m faults

docs: ## build the documentation site into site/, strictly
	mkdocs build --strict

docs-serve: ## show the documentation site at http://127.0.0.1:8000
	mkdocs serve

bench: ## run the benchmarks and write benchmarks/RESULTS.md (needs their requirements; an hour or more)
	for name in scoring tokenizing ranking orchestration refresh leaderboard; do python benchmarks/$$name.py || exit 1; done

picture: ## make the README's picture anew from a run of the bundled sample
	ladm run && python docs/assets/attention.py ladm-store
