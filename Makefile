# The one entry to everything. `make` alone says what there is.
PYTHON ?= /usr/bin/python3
OUT ?=
PYTEST_ARGS ?=
NAME ?= codec
STATES ?= 1000000
BIN := .venv/bin
DEMO_READY := .venv/.ready-demo
TEST_READY := .venv/.ready-test

FUZZ_SECONDS ?= 600

.PHONY: help demo test bench explore fuzz lint format docs reference package bpf guest clean
.DEFAULT_GOAL := help

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Set-up runs when pyproject.toml is newer than the stamp, so a warm start costs nothing. It talks on stderr only.
$(DEMO_READY): pyproject.toml deploy/setup.sh
	@PYTHON='$(PYTHON)' deploy/setup.sh demo
$(TEST_READY): pyproject.toml deploy/setup.sh
	@PYTHON='$(PYTHON)' deploy/setup.sh test

demo: $(DEMO_READY) ## build the lab, move a user, watch the service follow, print what happened (OUT=json: one JSON object)
	@$(BIN)/lispfmc lab demo $(if $(OUT),-o $(OUT))

test: $(TEST_READY) ## run every test (PYTEST_ARGS=... to choose)
	@$(BIN)/pytest $(PYTEST_ARGS)

bench: $(TEST_READY) ## measure, into build/bench/NAME.json (NAME=codec, mapserver, overhead, dataplane, controller)
	@$(BIN)/python -m tests.bench $(NAME)

explore: $(TEST_READY) ## explore the moves exhaustively, a million states (STATES=...)
	@$(BIN)/python -m tests.explore --states $(STATES)

fuzz: $(TEST_READY) ## hold the codec against construct 10,000 times a message, then fuzz it (FUZZ_SECONDS=600)
	@LISPFMC_EXAMPLES=10000 $(BIN)/pytest -q tests/properties/test_wire_compiled.py
	@$(BIN)/python -m tests.fuzz.decode $(FUZZ_SECONDS)

lint: $(TEST_READY) ## check style, format, types and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(TEST_READY) ## format the code and apply safe fixes
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(TEST_READY) ## build the documents into build/site, failing on any warning
	@deploy/docs.sh

reference: $(TEST_READY) ## write the reference pages of docs/ anew from settings and commands
	@$(BIN)/python -m lispfmc.cli.reference docs/reference

package: $(TEST_READY) ## build wheel, sdist and .deb into dist/
	@deploy/package.sh

bpf: ## compile the kernel data plane (needs clang, llvm, libbpf-dev; the result is committed)
	@deploy/bpf.sh

guest: ## put QEMU and the guest of the virtual machines' tests under build/ (set-up does it for `make test`)
	@deploy/guest.sh

clean: ## remove what set-up and tests made in this folder (a running lab: lispfmc lab down)
	@rm -rf .venv build dist .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
