# Every target does its own set-up; what it builds is cached outside the checkout, keyed by version or lock-file hash.
SHELL := bash
export FLYWHEEL_CACHE ?= $(HOME)/.cache/flywheel
hash = $(shell cat $(1) | sha256sum | cut -c1-12)
VENV := $(FLYWHEEL_CACHE)/venv/dev-$(call hash,requirements/dev.lock)
VENV_ML := $(FLYWHEEL_CACHE)/venv/ml-$(call hash,requirements/ml.lock requirements/test.lock dev/venv_ml.sh)
PYTHON := $(VENV)/bin/python
export PYTHONPATH := $(CURDIR):$(CURDIR)/operator:$(CURDIR)/trainers:$(CURDIR)/collector
IN_CLUSTER := eval "$$(python3 -m dev.cluster env)" &&

.DEFAULT_GOAL := help
.PHONY: bench-operator bench-verdict bench-router bench-collector help venv venv-ml lint format test test-unit test-ml test-cluster test-kill demo cluster-up cluster-down images crds cli-docs lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ —/'

$(VENV)/.ready:
	@echo "installing the development tools (about a minute, once): $(VENV)"
	@python3 -m venv $(VENV) && $(VENV)/bin/pip install -q --no-deps --require-hashes -r requirements/dev.lock && touch $@
venv: $(VENV)/.ready

$(VENV_ML)/.ready:
	@bash dev/venv_ml.sh $(VENV_ML) && touch $@
venv-ml: $(VENV_ML)/.ready

lint: venv ## ruff, mypy --strict, import contracts
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy operator/flywheel collector/flywheel_collector dev
	$(VENV)/bin/lint-imports --no-cache

format: venv ## mend what ruff can
	$(VENV)/bin/ruff check --fix . && $(VENV)/bin/ruff format .

crds: venv ## generate crds/ and the chart's copy from operator/flywheel/api
	$(PYTHON) -m dev.crds

cli-docs: venv ## generate docs/cli.md from operator/flywheel/cli
	$(PYTHON) -m dev.cli_docs

test: test-unit test-ml test-cluster ## every test but the twin of the kill test, `make test-kill` (30 to 40 minutes warm, some 20 more on a bare machine)

test-unit: venv ## operator, collector, router (a real Envoy) and simulator
	$(PYTHON) -m pytest -q -m "not cluster" --ignore=tests/trainers tests

test-ml: venv-ml ## real training steps on a tiny model
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(VENV_ML)/bin/python -m pytest -q tests/trainers

test-cluster: venv images ## promises, on the real local cluster
	$(IN_CLUSTER) FLYWHEEL_REQUIRE_CLUSTER=1 $(PYTHON) -m pytest -q -m "cluster and not twin" --ignore=tests/trainers tests

test-kill: venv images ## two laps on the local cluster, undisturbed and with the operator killed at every transition: the same end, bit by bit
	$(IN_CLUSTER) FLYWHEEL_REQUIRE_CLUSTER=1 $(PYTHON) -m pytest -q -s -m cluster tests/cluster/promises/test_killed_laps.py

cluster-up: ## a real one-node Kubernetes on this machine (about 10 minutes the first time, then seconds)
	python3 -m dev.cluster up

cluster-down: ## stop it and leave nothing behind
	python3 -m dev.cluster down

images: cluster-up ## build the images that changed and load them into the cluster
	python3 -m dev.cluster images

demo: venv images ## three laps of the flywheel on the local cluster (about 12 minutes warm, about 30 on a bare machine); SEED=7 DEMO_ARGS="--chaos 5"
	$(IN_CLUSTER) $(PYTHON) -m dev.demo $(DEMO_ARGS)

bench-verdict: venv ## error rates of the verdict, by simulation (10 to 15 minutes; BENCH_ARGS=--quick, or --write docs/benchmarks/verdict.md)
	$(PYTHON) -m dev.bench.verdict $(BENCH_ARGS)

bench-router: venv ## weight change to first effect, added latency, failed requests (a real Envoy)
	$(PYTHON) -m dev.bench.router

bench-collector: venv ## turns a second on one core, memory, recount
	$(PYTHON) -m dev.bench.collector

bench-operator: venv ## what the operator costs at 100, 300 and 1,000 Flywheels (a real API server; half an hour on a quiet machine, most of it to make the objects)
	$(PYTHON) -m dev.bench.operator $(BENCH_ARGS)

lock: ## resolve pyproject.toml again into requirements/*.lock
	bash dev/lock.sh && bash images/lock.sh
