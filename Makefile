# Every target installs what it needs and is missing. `make` alone lists them.
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# Node 24 comes with the packages; the system's node only runs npm.
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

LAUNCHER = node deploy/local/main.ts
PYTHON_FILES = automation

.PHONY: help demo test test-long chaos chaos-long mutants up down logs status reset token gen lint format check bench bench-peers bench-history migrate rollback migration doctor profile \
  grpcurl examples node tools stack

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: stack ## The main job, for real: start the stack, run an automation over REST, watch its log live
	@$(LAUNCHER) up && node scripts/demo.ts

test: stack grpcurl examples ## Everything, on a stack of its own (PART=lint|services|automation|e2e|chaos for one part)
	@node scripts/test.ts

test-long: stack grpcurl examples ## As test, at length: more kills, more runs of each property
	@MILLRACE_TEST_LONG=1 node scripts/test.ts

chaos: stack ## Kill, stop, cut off, wipe and fill up parts at random for two minutes, and judge what became of everything (SEED=)
	@node scripts/chaos.ts

chaos-long: stack ## The same with 1,000 kills, 20 wipes and 10,000 executions (SEED= goes on where it ended, FROM=<round>, ROUNDS=)
	@node scripts/chaos.ts --long

mutants: stack ## Leave out one mechanism of the engine at a time: does the test named for it fail? (MUTANT="no fence" for one)
	@node scripts/mutants.ts

up: stack ## Start the stack in the background (FOREGROUND=1 stays)
	@$(LAUNCHER) up

down: node ## Stop it in order
	@$(LAUNCHER) down

logs: node ## Follow the logs (PART=api for one part)
	@$(LAUNCHER) logs

status: node ## Show each part: state, pid, address, restarts, memory
	@$(LAUNCHER) status

reset: node ## Stop it and delete all its data (CONFIRM=1 does not ask)
	@$(LAUNCHER) reset

token: node ## Print a service's token, valid for 60 s: SERVICE=dispatcher AUD=runner
	@$(LAUNCHER) token

gen: tools ## Generate build/ from the contracts
	@node scripts/gen.ts

lint: gen ## Check contracts, TypeScript and Python
	@node scripts/lint.ts

format: tools ## Format everything
	@buf format -w proto && biome check --write . && .venv/bin/ruff check --fix $(PYTHON_FILES) && .venv/bin/ruff format $(PYTHON_FILES)

check: gen ## Check the types
	@tsc -p .

bench: stack ## Measure throughput and latency (QUICK=1 takes less, REPEAT=3 keeps medians)
	@node bench/main.ts

bench-peers: stack ## Measure the product beside its peers, in one table (QUICK=1, REPEAT=3, ONLY=millrace,celery, TEMPORAL=build)
	@node bench/peers/main.ts

bench-history: stack ## Measure what 1,000,000 finished executions cost (COUNT=20000 REPEAT=1 RUN=50 shows that it runs)
	@node bench/history.ts

profile: stack ## Show where the processor time of one execution goes (ISOLATION=REUSED, COUNT=)
	@node bench/profile.ts

migrate: node ## Bring the schemas of the running stack up to date
	@$(LAUNCHER) migrate

rollback: node ## Take one migration back: area=tasks
	@$(LAUNCHER) rollback

migration: node ## Begin a migration: area=tasks name=add-labels
	@node services/migrate.ts new "$(area)" "$(name)"

doctor: node ## Say what this machine has and what is missing
	@$(LAUNCHER) doctor

grpcurl: tools ## Build grpcurl into build/tools
	@scripts/install.sh grpcurl

# What targets stand on.
examples:
	@scripts/install.sh examples

node:
	@scripts/install.sh node

tools:
	@scripts/install.sh node python

stack:
	@scripts/install.sh node python database environment
	@node scripts/gen.ts
