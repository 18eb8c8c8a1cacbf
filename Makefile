# Every task of the project. `make help` lists them; nothing but Python 3.11+ and make is assumed.
VENV := .venv
BIN := $(VENV)/bin
export VENV
# The embedded servers are used unless these two are set; the test targets set or unset them.
EMBEDDED := env -u ONEBAR_KAFKA_BOOTSTRAP -u ONEBAR_REDIS_URL
REAL := $(BIN)/python deploy/real_servers.py run
# Typed programs outside the packages.
TOOLS := deploy/real_servers.py docs/make_configuration.py tests/run_all.py examples/*.py
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo demo-check test lint format typecheck test-unit test-embedded test-real \
        demo-check-real schemas checkpoint results install clean

help: ## list these tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' Makefile

$(VENV)/.installed-local: pyproject.toml deploy/setup.sh
	@deploy/setup.sh local

$(VENV)/.installed-dev: pyproject.toml deploy/setup.sh
	@deploy/setup.sh dev

demo: $(VENV)/.installed-local ## the whole path on this machine, with a simulated feed and a page
	@$(BIN)/onebar demo $(ARGS)

demo-check: $(VENV)/.installed-local ## the same without a page: replay, compare, print one JSON object
	@$(EMBEDDED) $(BIN)/onebar demo --check --json $(ARGS)

demo-check-real: $(VENV)/.installed-local ## demo-check on Apache Kafka and Redis
	@$(REAL) -- $(BIN)/onebar demo --check --json $(ARGS)

test: $(VENV)/.installed-dev ## everything below, and a summary: lint, types, unit, both integrations
	@$(BIN)/python tests/run_all.py

lint: $(VENV)/.installed-dev ## ruff, and the format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev ## let ruff mend and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(VENV)/.installed-dev ## mypy --strict
	$(BIN)/mypy
	$(BIN)/mypy $(TOOLS)

test-unit: $(VENV)/.installed-dev ## tests that need no server
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/unit -n logical --maxprocesses 4 --dist loadfile $(ARGS)

test-embedded: $(VENV)/.installed-dev ## integration tests on the embedded broker and Valkey
	$(EMBEDDED) $(BIN)/pytest tests/integration $(ARGS)

test-real: $(VENV)/.installed-dev ## integration tests on Apache Kafka and Redis (Java 17, Maven, redis-server)
	$(REAL) -- $(BIN)/pytest tests/integration $(ARGS)

schemas: $(VENV)/.installed-local ## write docs/schemas from the event types, docs/configuration.md from the settings
	$(BIN)/python -m stream.events.schemas
	$(BIN)/python docs/make_configuration.py

checkpoint: $(VENV)/.installed-dev ## train the small checkpoint that is shipped for the demo
	$(BIN)/onebar train demo

results: $(VENV)/.installed-dev ## train and measure everything in docs/results.md (hours on two cores; resumable)
	$(BIN)/python benchmarks/results.py $(ARGS)

install: $(VENV)/.installed-dev ## make .venv with everything a developer needs

clean: ## remove the virtual environment, caches and build results
	rm -rf $(VENV) .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
