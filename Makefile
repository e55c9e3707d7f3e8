# The two commands: `make demo` and `make test`. Everything lives in one virtual environment, $(VENV), which each target completes as far as it needs.

PYTHON ?= python3
VENV ?= .venv
OUT ?= out
PEERS := $(VENV)-peers
GPU := $(VENV)-gpu

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# An editable install sees source changes by itself; only these make it stale.
INSTALLED_FROM := pyproject.toml constraints.txt
# The oldest and the newest of TensorRT 10 and the newest of 11, as tests/dap/engines/test_tensorrt_types.py names them.
TENSORRT := 10.0.1 10.16.1.11 11.4.0.106

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo serve test test-gpu tensorrt-types check pipeline-smoke format bench bench-service bench-engine bench-roofline bench-cost bench-gpu bench-overload bench-soak bench-peers image image-gpu clean

help:
	@echo 'make demo    a panorama in, depth, point cloud and metrics out (in $(OUT)/)'
	@echo 'make serve   start the service with the bundled model and stay'
	@echo 'make test    format, lint, types and the whole suite'
	@echo 'make test-gpu  on a machine with an NVIDIA GPU: what the suite can only play (docs/gpu.md)'
	@echo 'make check   format, lint and types alone'
	@echo 'make pipeline-smoke  the three stages of training at toy size (part of make test)'
	@echo 'make format  let ruff rewrite what it can'
	@echo 'make bench   measure the service on this machine (docs/performance.md); bench-service (beside LitServe and BentoML),'
	@echo '             bench-engine (the engines alone), bench-roofline, bench-cost, bench-overload and bench-soak measure more'
	@echo '             bench-engine takes a quarter of an hour on 2 cores and what is in the repository. The rest of the tables, in $(BIN):'
	@echo '             dap bench engine --model dap-s --against CHECKPOINT --contender eager:fp32 --contender torch:fp32 --contender onnx:fp32 --contender onnx:int8'
	@echo '             dap bench engine --model vit-l --contender eager:fp32 --contender onnx:int8 --range masks --rounds 2'
	@echo 'make bench-gpu  on a machine with an NVIDIA GPU: engines, rooflines, service and cost of the ViT-L there (in $(OUT)/gpu)'
	@echo 'make image   build the container image of the service (docker); image-gpu: the one for an NVIDIA GPU'
	@echo 'make clean   remove the environment and everything made'

demo: $(VENV)/runs
	$(BIN)/python -m demo.run --output $(OUT)

serve: $(VENV)/runs
	$(BIN)/dap serve

test: check
	@$(MAKE) --no-print-directory tensorrt-types || echo 'The bindings of TensorRT cannot be had here: what needs them is skipped.'
	$(BIN)/python -m pytest

# What is marked gpu, of which nothing may be skipped.
test-gpu: $(GPU)/develops
	DAP_TEST_GPU=1 $(GPU)/bin/python -m pytest -m gpu

tensorrt-types: $(VENV)/tensorrt/made

check: $(VENV)/develops
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The suite runs the same command (tests/training/conftest.py) and looks at what it leaves.
pipeline-smoke: $(VENV)/develops
	rm -rf $(OUT)/pipeline-smoke
	$(BIN)/dap train pipeline --preset smoke --run smoke --runs $(OUT)/pipeline-smoke --device cpu --threads 1

format: $(VENV)/develops
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/runs
	$(BIN)/python -m benchmarks.commands service --output $(OUT)/benchmark.json

bench-service: $(VENV)/runs bench-peers
	$(BIN)/python -m benchmarks.commands service --peers $(PEERS)/bin/python --output $(OUT)/benchmark.json

# The bundled model, and the official network in its smallest and its largest size, untrained: what it costs does not depend on its weights.
# A quarter of an hour on 2 cores, most of it the ViT-L's: it is exported, compared and raced.
bench-engine: $(VENV)/develops
	$(BIN)/python -m benchmarks.commands engine --output $(OUT)/engine-dap-s.json
	$(BIN)/python -m benchmarks.commands engine --model vit-s --contender eager:fp32 --contender torch:fp32 --contender onnx:fp32 --contender onnx:int8 --rounds 3 --output $(OUT)/engine-vit-s.json
	$(BIN)/python -m benchmarks.commands engine --model vit-l --range masks --rounds 2 --output $(OUT)/engine-vit-l.json

bench-roofline: $(VENV)/develops
	$(BIN)/python -m benchmarks.commands roofline --output $(OUT)/roofline.json

bench-cost: $(VENV)/runs
	$(BIN)/python -m benchmarks.commands cost --output $(OUT)/cost.json --picture $(OUT)/request.svg

# Of what is installed; without onnxruntime-gpu or TensorRT, from any environment with torch: dap bench suite.
bench-gpu: $(GPU)/develops
	$(GPU)/bin/python -m benchmarks.commands suite --device cuda --output $(OUT)/gpu

bench-overload: $(VENV)/runs
	$(BIN)/python -m benchmarks.commands overload --output $(OUT)/overload.json

bench-soak: $(VENV)/runs
	$(BIN)/python -m benchmarks.commands soak --output $(OUT)/soak.json

bench-peers: $(PEERS)/runs

image:
	docker build --target cpu --tag depth-any-panorama:cpu .

image-gpu:
	docker build --target gpu --tag depth-any-panorama:gpu .

clean:
	rm -rf $(VENV) $(GPU) $(PEERS) $(OUT) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, $(PYTHON) is " + sys.version)'
	$(PYTHON) -m venv $(VENV)

# What the service needs: no torch.
$(VENV)/runs: $(INSTALLED_FROM) | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

# torch first and by exact version: left to the resolver it may bring another build with gigabytes of device libraries.
$(VENV)/develops: $(INSTALLED_FROM) | $(BIN)/python
	$(PIP) install --quiet "$$(grep '^torch==' constraints.txt)"
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/runs

# Apart from $(VENV): onnxruntime and onnxruntime-gpu are the same files, so one goes before the other comes (docs/decisions/0016).
$(GPU)/develops: $(INSTALLED_FROM) | $(BIN)/python
	$(PYTHON) -m venv $(GPU)
	$(GPU)/bin/python -m pip --disable-pip-version-check install --quiet "$$(grep '^torch==' constraints.txt)"
	$(GPU)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt -e '.[dev,gpu]'
	$(GPU)/bin/python -m pip --disable-pip-version-check uninstall --quiet --yes onnxruntime onnxruntime-gpu
	$(GPU)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt 'onnxruntime-gpu[cuda,cudnn]>=1.21'
	@touch $@

# The Python bindings of TensorRT for the signatures in them, 1 MB each, under NVIDIA's licence; TensorRT itself is not among them.
$(VENV)/tensorrt/made: tests/dap/engines/tensorrt_stubs.py $(VENV)/develops
	for version in $(TENSORRT); do $(PIP) install --quiet --no-deps --upgrade --target $(VENV)/tensorrt/$$version tensorrt-cu12-bindings==$$version; done
	ls -d $(VENV)/tensorrt/*/tensorrt_bindings
	$(BIN)/python -m tests.dap.engines.tensorrt_stubs $(VENV)/tensorrt
	@touch $@

# LitServe and BentoML, apart from everything else, and this project beside them for what decodes and encodes.
$(PEERS)/runs: $(INSTALLED_FROM) benchmarks/peers.txt | $(BIN)/python
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --disable-pip-version-check install --quiet -r benchmarks/peers.txt -e .
	@touch $@
