# Every task of the project. `make help` lists them; nothing but Python 3.11+ and make is assumed.
VENV := .venv
BIN := $(VENV)/bin
export VENV
# The embedded servers are used unless these two are set; the test targets set or unset them.
EMBEDDED := env -u ONEBAR_KAFKA_BOOTSTRAP -u ONEBAR_REDIS_URL
REAL := $(BIN)/python deploy/real_servers.py run
UNIT := OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile
# Typed programs outside the packages.
TOOLS := deploy/real_servers.py docs/*.py tests/run_all.py tests/screenshots.py examples/*.py
ARGS ?=
# What to test: the paths in ARGS where it has any, else all of these, and its options.
paths = $(if $(findstring tests/,$(ARGS)),$(ARGS),$(1) $(ARGS))

.DEFAULT_GOAL := help
.PHONY: help demo demo-check demo-check-real test test-unit test-embedded test-real test-faults test-newest \
        audit package coverage lint format typecheck install lock pre-commit clean schemas docs helm-check screenshots checkpoint results

help: ## list these tasks
	@awk -F ':.*## ' '/^## / {printf "\n%s\n", substr($$0, 4)} \
	    /^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' Makefile

$(VENV)/.installed-local: pyproject.toml constraints.txt deploy/setup.sh
	@deploy/setup.sh local

$(VENV)/.installed-dev: pyproject.toml constraints.txt deploy/setup.sh
	@deploy/setup.sh dev

## See it run

demo: $(VENV)/.installed-local ## the whole path on this machine, with a simulated feed and a page
	@$(BIN)/onebar demo $(ARGS)

demo-check: $(VENV)/.installed-local ## the same without a page: replay, compare, print one JSON object
	@$(EMBEDDED) $(BIN)/onebar demo --check --json $(ARGS)

demo-check-real: $(VENV)/.installed-local ## demo-check on Apache Kafka and Redis
	@$(REAL) -- $(BIN)/onebar demo --check --json $(ARGS)

## Test it

test: $(VENV)/.installed-dev ## all of the checks, and a summary: lint, types, unit, both integrations
	@$(BIN)/python tests/run_all.py

test-unit: $(VENV)/.installed-dev ## tests that need no server
	$(UNIT) $(call paths,tests/unit)

test-embedded: $(VENV)/.installed-dev ## integration tests on the embedded broker and Valkey
	$(EMBEDDED) $(BIN)/pytest $(call paths,tests/integration)

test-real: $(VENV)/.installed-dev ## integration tests on Apache Kafka and Redis (Java 17, Maven, redis-server)
	$(REAL) -- $(BIN)/pytest $(call paths,tests/integration)

test-faults: $(VENV)/.installed-dev ## faults befall a running OneBar for minutes; then its state is the log's (ARGS="--seed 7 --minutes 5")
	@PYTHONPATH=tests/helpers $(BIN)/python -m tests.faults $(ARGS)

test-newest: ## make test with the newest releases that pyproject.toml allows, in .venv-newest
	@VENV=.venv-newest CONSTRAINTS= deploy/setup.sh dev
	@echo "Held back by an upper bound, ours or another's:"
	@.venv-newest/bin/python -m uv pip list --python .venv-newest/bin/python --outdated
	@.venv-newest/bin/python tests/run_all.py

audit: $(VENV)/.installed-dev ## known vulnerabilities of what we stand on (pip-audit), risky code of ours (bandit); needs the network
	$(BIN)/python -m uv tool run bandit -q -r -ll api feature_store onebar stream deploy
	# Strict: an index that tells of no vulnerabilities, as a mirror may, is no index without any.
	$(BIN)/python -m uv tool run pip-audit --strict -r constraints.txt --no-deps --disable-pip

package: $(VENV)/.installed-dev ## wheel, sdist and bill of materials in dist/, checked (ARGS=v0.1.0: for that tag); needs the network
	@deploy/package.sh $(ARGS)

helm-check: $(VENV)/.installed-dev ## render deploy/helm and hold it to Kubernetes' schemas; needs helm or Go, and the network
	deploy/helm/check.sh

coverage: $(VENV)/.installed-dev ## the unit tests, and the lines of each file that none of them reaches
	$(UNIT) --cov --cov-report=term-missing $(call paths,tests/unit)

lint: $(VENV)/.installed-dev ## ruff, and the format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(VENV)/.installed-dev ## mypy --strict
	$(BIN)/mypy
	$(BIN)/mypy $(TOOLS)

## Work on it

install: $(VENV)/.installed-dev ## make .venv with everything a developer needs

format: $(VENV)/.installed-dev ## let ruff mend and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

pre-commit: $(VENV)/.installed-dev ## run lint and types before each commit from now on
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pre-commit
	$(BIN)/pre-commit install

lock: $(VENV)/.installed-dev ## write constraints.txt anew (ARGS=--upgrade: with the newest releases)
	$(BIN)/python -m uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	    --no-annotate --quiet --custom-compile-command "make lock" -o constraints.txt $(ARGS)

clean: ## remove the virtual environments, caches and build results
	rm -rf $(VENV) .venv-* .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

## Write what is generated

schemas: $(VENV)/.installed-local ## docs/schemas, openapi.json, configuration.md, commands.md, from the code
	$(BIN)/python -m stream.events.schemas
	$(BIN)/python docs/make_configuration.py
	$(BIN)/python docs/make_commands.py
	$(BIN)/python docs/make_openapi.py

docs: $(VENV)/.installed-dev ## the docs as a site in build/site (ARGS=serve: while you write); needs the network once
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m uv tool run --from mkdocs --with-requirements docs/requirements.txt \
	    mkdocs $(or $(ARGS),build --strict)

screenshots: $(VENV)/.installed-dev ## docs/images, of a running demo in the system's chromium
	$(EMBEDDED) $(BIN)/python tests/screenshots.py

checkpoint: $(VENV)/.installed-dev ## train the small checkpoint that is shipped for the demo
	$(BIN)/onebar train demo --out onebar/generator/checkpoints/demo

results: $(VENV)/.installed-dev ## train and measure everything in docs/results.md (hours on two cores; resumable)
	$(BIN)/python benchmarks/results.py $(ARGS)
