# Everything a developer runs. Built and downloaded things live outside the clone: see tests/setup/environment.
export AVOUCH_CACHE ?= $(HOME)/.cache/avouch
export CARGO_TARGET_DIR ?= $(AVOUCH_CACHE)/target

.PHONY: help setup test notebooks demo bench fmt clean

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: ## bring what the tests need: Kafka's jars, anvil and forge, Prometheus, Alertmanager, mosquitto, moto, the notebooks' packages
	@tests/setup/install

test: ## everything CI runs: format, lints, contracts, notebooks, unit, property and whole-system tests
	@tests/setup/run-all

notebooks: ## run the notebooks from top to bottom, and keep what they print and draw in ~/.cache/avouch/notebooks
	@tests/setup/install contracts notebooks
	cargo build --locked --release --workspace --bins
	@PATH="$(CARGO_TARGET_DIR)/release:$$PATH" "$(AVOUCH_CACHE)/notebook-venv/bin/python" notebooks/run --out "$(AVOUCH_CACHE)/notebooks"

demo: ## the whole path in two minutes: a simulated fleet, judged, anchored, verified
	@tests/setup/install contracts
	cargo build --locked --release --bin avouch
	@"$(CARGO_TARGET_DIR)/release/avouch" demo

bench: ## rows per CPU-second beside DuckDB and LaminarDB, detectors beside river, scikit-learn and PyOD; signatures; latency; the pause of a checkpoint
	@tests/setup/install kafka duckdb laminardb peers
	cargo build --locked --release --workspace --bins --examples
	@tests/bench/detectors || test $$? -eq 3 && true
	@"$(CARGO_TARGET_DIR)/release/examples/signature_rate" 500
	@"$(CARGO_TARGET_DIR)/release/with-kafka" tests/bench/run || test $$? -eq 3 && true

fmt: ## format the sources
	cargo fmt

clean: ## remove everything built and downloaded, for a cold start
	cargo clean
	rm -rf $(addprefix $(AVOUCH_CACHE)/,kafka prometheus alertmanager mosquitto moto-venv notebook-venv notebooks bench bench-venv fuzz system-tests) connectors/ethereum/contracts/node_modules connectors/ethereum/hardhat/node_modules
