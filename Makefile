# Everything runs in .venv, which the first target that needs it sets up.
PYTHON ?= python3.11
BIN := .venv/bin
# Several test processes on few cores: one thread each, or they wait for one another.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help setup demo test check gpu bench bench-latency bench-overhead bench-fidelity bench-kill bench-faults bench-devices bench-predictors bench-quant bench-text bench-pretrained arm64 clean bench-search bench-search-kill bench-cluster

help:            ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

setup: .venv/.ready  ## Install everything into .venv

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0 --editable '.[dev]'
	touch $@

# Model builders that work without their hardware: another minute and 350 MB.
.venv/.builders: .venv/.ready
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0 --editable '.[dev,coreml,tensorrt-rtx]'
	touch $@

demo: setup      ## From real data to a measured Pareto front
	$(BIN)/nas run examples/digits.yaml

test: .venv/.builders  ## All tests, with TensorRT-RTX and CoreML tools to build models with
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist loadfile

check: setup     ## Format, lint, types, import order, fast tests; a minute or two
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports --no-logo
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

gpu: setup       ## The checks that need an NVIDIA GPU; says which it skipped
	$(BIN)/python -m pytest -m gpu -rs

bench: bench-overhead bench-latency bench-devices bench-fidelity bench-kill bench-faults  ## All benchmarks; an hour and more

bench-overhead: setup  ## Cost of a subnet inside the supernet, against its extracted module
	$(BIN)/python -m benchmarks.overhead

bench-latency: setup   ## Predicted against measured latency on random subnets
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.attention_form

bench-devices: setup   ## A second device evaluates nothing again
	$(BIN)/python -m benchmarks.second_device

bench-fidelity: setup  ## Quality in the supernet, against training alone
	$(BIN)/python -m benchmarks.fidelity

bench-kill: setup      ## Kill -9 at random moments, resume, compare
	$(BIN)/python -m benchmarks.kill

bench-faults: setup    ## 500 faults on the way to a device behind SSH
	$(BIN)/python -m benchmarks.faults

bench-predictors: setup  ## Latency learned from few rows of every CSV in DATA=folder
	$(ONE_THREAD) $(BIN)/python -m benchmarks.predictors $(DATA)

bench-quant: setup     ## Precision policies: simulation against runtime, 4-bit weights, speed
	$(ONE_THREAD) $(BIN)/python -m benchmarks.quantization --check agreement
	$(ONE_THREAD) $(BIN)/python -m benchmarks.low_bits
	$(ONE_THREAD) $(BIN)/python -m benchmarks.outlier_cost
	$(ONE_THREAD) $(BIN)/python -m benchmarks.quantization --check speed
	$(ONE_THREAD) $(BIN)/python -m benchmarks.int8_pays
	$(ONE_THREAD) $(BIN)/python -m benchmarks.policy_search --example digits
	$(ONE_THREAD) $(BIN)/python -m benchmarks.policy_search --example text

bench-search: setup    ## Search algorithms on problems with a known front; 40 minutes and set-up
	$(ONE_THREAD) $(BIN)/python -m benchmarks.search

bench-search-kill: setup  ## Kill -9 searches at random moments, resume, compare
	$(ONE_THREAD) $(BIN)/python -m benchmarks.search_kill

bench-pretrained: setup  ## Subnets of a pretrained network, as imported and tuned
	$(ONE_THREAD) $(BIN)/python -m benchmarks.pretrained

bench-cluster: setup   ## Evaluations per second on workers of Ray, against this process alone
	$(ONE_THREAD) $(BIN)/python -m benchmarks.cluster

bench-text: setup      ## The language-model example
	$(BIN)/nas run examples/text.yaml

arm64: setup     ## The agent on an emulated arm64 Linux; needs Debian's qemu-user-static
	$(BIN)/python -m pytest tests/latency/test_arm64.py -rs

clean:           ## Remove what the targets made
	rm -rf .venv runs
