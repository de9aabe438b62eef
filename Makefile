# ernie: `make demo` shows it, `make test` proves it. `make help` lists the rest.
#
# Needs Python 3.10 or newer and make. Everything is installed into $(VENV), with the releases in constraints.txt.

PYTHON ?= python3
VENV ?= .venv
OUT ?= out
PEER_PYTHON ?=
GPU_PYTHON ?= $(VENV)/bin/python
WORK ?= $(OUT)/bench
PROMPT ?= What is 23 plus 45?

BIN := $(VENV)/bin
ERNIE := $(BIN)/ernie
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
SOURCES := $(shell find ernie_cli commands converters profiles -name '*.py' -o -name '*.toml')
MODEL := ernie-4.5-nano
# paddle2onnx holds the environment's onnx at 1.17, which knows no opset above 22.
NEWEST_ONNX := 1.23.2
TEST := $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal

.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-gpu test-newest-onnx lint bench bench-gpu clean distclean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 26

# --- the demonstration: one folder per step, each made from the one before it ------------------------------------------

demo: $(OUT)/onnx/ernie.json  ## download → convert → inspect → run on the model inside the package
	$(ERNIE) inspect $(OUT)/onnx
	$(ERNIE) run $(OUT)/onnx "$(PROMPT)"

$(OUT)/$(MODEL)/ernie.json: | $(VENV)/.ready
	$(ERNIE) download $(MODEL) -o $(@D)

# ernie leaves a result that is up to date alone; `touch` tells make so.
$(OUT)/onnx/ernie.json: $(OUT)/$(MODEL)/ernie.json | $(VENV)/.ready
	$(ERNIE) convert $(<D) --to onnx -o $(@D)
	@touch $@

# --- checks -------------------------------------------------------------------------------------------------------------

test: $(VENV)/.ready-for-tests  ## the test suite (pytest; no network beyond loopback)
	$(TEST) -m "not slow"

test-slow: $(VENV)/.ready-for-tests  ## the tests that take long: breadth, real sizes
	$(TEST) -m slow

# Where onnxruntime-gpu lies in an environment of its own: make test-gpu GPU_PYTHON=/path/to/python
test-gpu: $(VENV)/.ready-for-tests  ## the tests that need an NVIDIA GPU, on a machine that has one
	$(GPU_PYTHON) -m pytest -m gpu --require-gpu

# The newest onnx lies in a folder that is searched first; everything else is the environment's.
test-newest-onnx: $(VENV)/newest-onnx/.ready  ## what reads and writes ONNX, with the newest onnx and its own backend tests
	PYTHONPATH=$(abspath $(VENV)/newest-onnx) $(TEST) tests/torchscript tests/onnxgraph tests/graph tests/quant tests/test_inspect.py tests/test_quantize.py -m "not slow"

$(VENV)/newest-onnx/.ready: $(VENV)/.ready-for-tests
	@rm -rf $(@D)
	@$(PIP) install --no-deps --target $(@D) onnx==$(NEWEST_ONNX)
	@touch $@

# mypy does not follow the mapping of commands/, converters/ and profiles/ into the package in an editable install, so it
# reads a normal one, put aside for it.
lint: $(VENV)/typed/.ready  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd $(VENV)/typed && MYPYPATH=. $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(abspath $(VENV))/mypy -p ernie_cli

bench: $(VENV)/.ready-for-tests  ## time ernie beside its peers: make bench PEER_PYTHON=…/bin/python (see tests/bench/RESULTS.md)
	@test -x "$(PEER_PYTHON)" || { echo "say make bench PEER_PYTHON=/path/to/python of an environment with the peers"; exit 1; }
	$(BIN)/python tests/bench/bench_help.py --peer-python $(PEER_PYTHON)
	$(BIN)/python tests/bench/bench_layout.py --work $(WORK)
	$(BIN)/python tests/bench/bench_convert.py --work $(WORK) --peer-python $(PEER_PYTHON)
	$(BIN)/python tests/bench/bench_decode.py --work $(WORK) --peer-python $(PEER_PYTHON)
	$(BIN)/python tests/bench/bench_fused.py --work $(WORK)
	$(BIN)/python tests/bench/bench_quality.py --work $(WORK)
	$(BIN)/python tests/bench/bench_quantize.py --work $(WORK) --peer-python $(PEER_PYTHON)
	$(BIN)/python tests/bench/bench_heads.py --model $(WORK)/quantised-int4-128
	$(BIN)/python tests/bench/bench_vision.py --work $(WORK)
	$(BIN)/python tests/bench/bench_build.py --work $(WORK)

bench-gpu: $(VENV)/.ready-for-tests  ## decoders on an NVIDIA GPU beside transformers: make bench-gpu GPU_PYTHON=…
	$(GPU_PYTHON) tests/bench/bench_gpu.py --work $(WORK)

# --- environments -------------------------------------------------------------------------------------------------------

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON) here: install Python 3.10 or newer, or say make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$$($(PYTHON) --version) is too old: ernie needs 3.10 or newer; say make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.ready: $(VENV)/.made pyproject.toml constraints.txt
	@echo "installing ernie into $(VENV)"
	@$(PIP) install -c constraints.txt -e '.[cpu]'
	@touch $@

$(VENV)/.ready-for-tests: $(VENV)/.ready
	@echo "installing what the tests need into $(VENV) (PyTorch, PaddlePaddle and TensorRT-RTX among it)"
	@$(PIP) install -c constraints.txt -e '.[dev,torch,paddle,rtx]'
	@touch $@

$(VENV)/typed/.ready: $(VENV)/.ready-for-tests $(SOURCES)
	@rm -rf $(VENV)/typed build
	@$(PIP) install --no-deps --no-build-isolation --target $(VENV)/typed .
	@rm -rf build && touch $@

clean:  ## remove what the demonstration and the checks left behind
	rm -rf $(OUT) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache $(VENV)/typed $(VENV)/mypy
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean  ## the same, and the environment
	rm -rf $(VENV)
