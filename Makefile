# make demo: synthesize clips and predict their genres.   make test: checks and fast tests.
# make test-slow: the slow tests, which CI runs, too.     make fuzz: 10,000 damaged files.
# All need python3 (>= 3.11) alone and install into .venv; the tests of the web UI need Chromium, too.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
export MUSICCLASS_CACHE ?= $(CURDIR)/.cache

.PHONY: demo test test-slow lint fuzz clean
demo: $(firstword $(wildcard .venv/test.done) .venv/demo.done)
	$(BIN)/python scripts/make_clips.py demo
	$(BIN)/musicclass predict demo --model gtzan --plot demo

test: lint
	$(BIN)/pytest -q -n 2 --dist worksteal

test-slow: .venv/test.done
	$(BIN)/pytest -q -m slow -n 2 --dist worksteal

fuzz: .venv/test.done
	$(BIN)/python -m tests.fuzz_decoder 10000

lint: .venv/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/demo.done: pyproject.toml hatch_build.py build_tagger.py
	$(PYTHON) -m venv .venv
	$(PIP) -e ".[plot]"
	touch $@

.venv/test.done: pyproject.toml hatch_build.py build_tagger.py constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e ".[dev]" -c constraints.txt
	$(BIN)/python hatch_build.py
	touch $@

clean:
	rm -rf .venv .cache demo src/musicclass/pretrained/musicnn src/musicclass/server/static/lib
