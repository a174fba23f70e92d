# Every entry point of the project. `make` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Ansible refuses to run in a locale that is not UTF-8; a fresh server has none at all.
export LC_ALL := C.UTF-8
export DEBIAN_FRONTEND := noninteractive
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Debian's own Python, which is also the hosts': pyenv and the like may shadow it.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
VENV := .venv
BIN := $(VENV)/bin
INVENTORY ?= inventories/lab
PYTEST_ARGS ?=
# Which faults strike when and where in `make chaos`; one is made up if none is given.
SEED ?=
# How many brokers `make chaos` is about; with 2 the lab is deployed with a hosted one if it is not.
BROKERS ?= 1
# What kombu's and Celery's own tests run over: ours or stock.
DELIVERY ?= ours
# How many hosts `make bench-fleet` simulates at most.
HOSTS ?= 1000
# For example --seconds 240, --rounds 3.
BENCH_ARGS ?=
# For example --ask-vault-pass.
ANSIBLE_ARGS ?=

# redis-tools, not redis-server: the latter would start a service on this machine. The binary is
# the same one; called redis-server it is the server.
PACKAGES := ca-certificates chromium-headless-shell conmon debian-archive-keyring git iproute2 \
	iptables libatomic1 mmdebstrap netavark nftables openssh-client podman procps python3 \
	python3-venv redis-tools runc shellcheck systemd

# Programs alone, unpacked and not installed: the packages would start servers on this machine. Most
# libraries that they need come with git, Python and podman.
NGINX := .cache/nginx/usr/sbin/nginx
SQUID := .cache/squid/usr/sbin/squid

# What we are measured against needs versions of its own.
CRAWLEE := .cache/crawlee/.installed

##@ Start here
.PHONY: help
help: ## List the entry points
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z][a-z-]*:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: packages $(NGINX) $(SQUID) $(VENV)/.installed ## Install what the rest needs: Debian packages, Python packages in .venv

.PHONY: demo
demo: setup lab ## Deploy to three local hosts, run 200 browser tasks, watch the scaler
	@$(BIN)/python -m lab.demo

##@ Hosts
.PHONY: lab
lab: packages ## Boot the lab: control, worker1, worker2, with real systemd and sshd
	@$(PYTHON) -m lab.lab up

.PHONY: down
down: ## Remove the lab's hosts and network; keep its caches
	@$(PYTHON) -m lab.lab down

.PHONY: lab-hosted
lab-hosted: setup lab ## Run a stand-in for a hosted Redis in the lab, for inventories/lab-hosted
	@$(BIN)/ansible-playbook -i inventories/lab-hosted lab/hosted.yml

ifeq ($(patsubst %/,%,$(INVENTORY)),inventories/lab-hosted)
deploy: lab-hosted
endif

.PHONY: deploy
deploy: setup ## Deploy to the hosts of INVENTORY (inventories/lab)
	@$(BIN)/python playbooks/wheelhouse.py
	@$(BIN)/ansible-playbook -i $(INVENTORY) $(ANSIBLE_ARGS) playbooks/deploy.yml

.PHONY: backup
backup: setup ## Copy what Redis holds in INVENTORY to a file in backups/
	@$(BIN)/ansible-playbook -i $(INVENTORY) $(ANSIBLE_ARGS) playbooks/backup.yml

.PHONY: restore
restore: setup ## Give Redis in INVENTORY what the file BACKUP holds
	@$(BIN)/ansible-playbook -i $(INVENTORY) -e redis_backup_file=$(abspath $(BACKUP)) \
	  $(ANSIBLE_ARGS) playbooks/restore.yml

##@ Checks
.PHONY: test
test: setup ## Lint, types, every test and a short chaos; then each one's closing line
	@CI=true .ci/stages lint types unit contract integration upstream molecule faults chaos-short

.PHONY: lint
lint: setup ## Style of Python, YAML, Ansible and shell; import layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/yamllint --strict .
	@git ls-files -z | xargs -0 grep -lE '^#!.*\b(ba)?sh\b' | xargs shellcheck
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-lint

.PHONY: types
types: setup ## mypy --strict
	@$(BIN)/mypy

.PHONY: unit
unit: setup ## Tests that need nothing outside the process
	@$(BIN)/pytest tests/unit --numprocesses 2 $(PYTEST_ARGS)

.PHONY: contract
contract: setup ## The same tests over fakes and over the real adapters
	@$(BIN)/pytest tests/contract -m "not lab" --numprocesses 2 $(PYTEST_ARGS)

.PHONY: integration
integration: setup $(CRAWLEE) ## Real Redis, Flower, Celery worker and Chromium on loopback
	@$(BIN)/pytest tests/integration -m "not lab" --numprocesses 4 --dist loadfile $(PYTEST_ARGS)
	@$(BIN)/pytest tests/hostile -m "not lab" $(PYTEST_ARGS)

.PHONY: upstream
upstream: setup ## kombu's and Celery's own tests over our delivery (DELIVERY=stock: over theirs)
	@$(BIN)/python -m tests.upstream.run --delivery $(DELIVERY)

.PHONY: molecule
molecule: setup lab ## Production playbook on the lab's hosts, with a hosted Redis and without: converge, idempotence, verify
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/molecule -c .config/molecule/config.yml test -s hosted
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/molecule -c .config/molecule/config.yml test

.PHONY: faults
faults: setup lab ## After demo or molecule, on their lab: scaler killed, Flower away, a host away, backup
	@$(BIN)/pytest tests/lab -m lab $(PYTEST_ARGS)

.PHONY: chaos
chaos: setup lab ## After demo or molecule, on their lab: everything breaks; SEED=n, BROKERS=2
ifeq ($(BROKERS),2)
	@$(BIN)/python -m chaos.two_brokers || $(MAKE) deploy INVENTORY=inventories/lab-hosted
endif
	@$(BIN)/python -m chaos --brokers $(BROKERS) $(if $(SEED),--seed $(SEED))

.PHONY: chaos-short
chaos-short: setup lab ## The same with 400 tasks, without what needs a lease to run out
	@$(BIN)/python -m chaos --short --seed $(or $(SEED),1)

##@ Benchmarks
.PHONY: bench-start
bench-start: setup ## Time to ready, to the first task and to stop, against a bare Chromium start
	@$(BIN)/python -m bench.start

.PHONY: bench-commands
bench-commands: setup ## Commands on Redis at rest and for a task, against stock Celery; takes long
	@$(BIN)/python -m bench.commands $(BENCH_ARGS)

.PHONY: bench-budget
bench-budget: setup ## A metered broker's accounts and forecast against the service's own count; an hour
	@$(BIN)/python -m bench.budget $(BENCH_ARGS)

.PHONY: bench-dispatch
bench-dispatch: setup ## Tasks a second and time to a task's start, against stock Celery; takes long
	@$(BIN)/python -m bench.dispatch $(BENCH_ARGS)

.PHONY: bench-scaler
bench-scaler: setup ## The scaler's policy on a virtual clock against KEDA's defaults and an exact count
	@$(BIN)/python -m bench.simulation $(BENCH_ARGS)

.PHONY: bench-fleet
bench-fleet: setup ## The scaler's daemon over SSH to HOSTS=1000 simulated hosts: CPU, memory, turns, a burst
	@$(BIN)/python -m bench.fleet --hosts $(HOSTS) $(BENCH_ARGS)

.PHONY: bench-reaction
bench-reaction: setup lab ## After demo or molecule, on their lab: time from a burst to starts and tasks
	@$(BIN)/python -m bench.reaction $(BENCH_ARGS)

.PHONY: bench-scale-downs
bench-scale-downs: setup lab ## On the same lab, 500 scale-downs under load: tasks interrupted; takes long
	@$(BIN)/python -m bench.scale_downs $(BENCH_ARGS)

.PHONY: bench-throughput
bench-throughput: setup $(CRAWLEE) ## Pages a second by pool mode, against a raw loop, stock Celery and Crawlee
	@$(BIN)/python -m bench.throughput $(BENCH_ARGS)

.PHONY: bench-density
bench-density: setup ## Memory of a task beside others, against a raw loop and stock Celery
	@$(BIN)/python -m bench.density $(BENCH_ARGS)

.PHONY: bench-ablation
bench-ablation: setup ## What single changes to browser and engine give; takes long
	@$(BIN)/python -m bench.ablation $(BENCH_ARGS)

.PHONY: bench-pictures
bench-pictures: setup ## Size of pictures by the fast encoder, against Playwright's
	@$(BIN)/python -m bench.pictures $(BENCH_ARGS)

.PHONY: bench-soak
bench-soak: setup ## 3,000 pages on one instance: failures, what is left behind, memory
	@$(BIN)/python -m bench.soak $(BENCH_ARGS)

.PHONY: bench-appendfsync
bench-appendfsync: setup ## What it costs to have each task on disk at once; BENCH_ARGS=--directory=PLACE
	@$(BIN)/python -m bench.appendfsync $(BENCH_ARGS)

##@ Upkeep
.PHONY: format
format: setup ## Format the Python code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: docs
docs: setup ## Write the reference pages that are made from the code
	@$(BIN)/python docs/generate.py

.PHONY: lock
lock: setup ## Resolve the Python packages anew into requirements/*.txt
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
	  --upgrade pyproject.toml -o requirements/runtime.txt
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
	  --upgrade --group dev -c requirements/runtime.txt pyproject.toml -o requirements/dev.txt
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
	  --upgrade requirements/crawlee.in -o requirements/crawlee.txt

.PHONY: clean
clean: ## Remove .venv and the tools' caches
	@rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .ansible dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Not entry points.
.PHONY: packages
packages:
	@missing=$$(for p in $(PACKAGES); do \
	    [ "$$(dpkg-query -W -f '$${db:Status-Status}' $$p 2>&1)" = installed ] || echo "$$p"; \
	  done); \
	if [ -n "$$missing" ]; then \
	  echo "installing Debian packages:" $$missing; \
	  apt-get update -qq && \
	  apt-get install -qq --no-install-recommends $$missing; \
	fi

$(NGINX):
	@echo "unpacking Debian's nginx into .cache"
	@rm -rf .cache/nginx && mkdir -p .cache/nginx
	@apt-get update -qq
	@cd .cache/nginx && apt-get download -qq -o APT::Sandbox::User=root nginx && dpkg-deb -x nginx_*.deb .
	@touch $@

$(SQUID):
	@echo "unpacking Debian's squid into .cache"
	@rm -rf .cache/squid && mkdir -p .cache/squid
	@apt-get update -qq
	@cd .cache/squid && apt-get download -qq -o APT::Sandbox::User=root \
	  squid squid-common squid-langpack libecap3 libltdl7 libtdb1 && \
	  for package in *.deb; do dpkg-deb -x $$package .; done
	@LD_LIBRARY_PATH=$$(echo .cache/squid/usr/lib/*-linux-gnu) $@ -v >/dev/null
	@touch $@

$(CRAWLEE): requirements/crawlee.txt
	@echo "installing Crawlee into .cache"
	@$(PYTHON) -m venv --clear .cache/crawlee
	@.cache/crawlee/bin/python -m pip install -q --require-hashes -r requirements/crawlee.txt
	@touch $@

$(VENV)/.installed: requirements/dev.txt pyproject.toml
	@echo "installing Python packages into $(VENV)"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation --no-index --editable .
	@touch $@
