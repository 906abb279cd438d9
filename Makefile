# make demo: make a short clip, tell its genre, draw its time line.  make test: all tests and checks.
# make fuzz: 10,000 damaged files.
# Both need python3 (>= 3.11) alone, and put what they install into .venv.
PYTHON ?= python3
BIN := .venv/bin
export MUSICCLASS_CACHE ?= $(CURDIR)/.cache

.PHONY: demo test lint fuzz clean
demo: .venv/demo.done
	$(BIN)/python scripts/make_clip.py demo.wav
	$(BIN)/musicclass predict demo.wav --top 5 --min-confidence 0 --plot demo.png

test: lint
	$(BIN)/pytest -q

fuzz: .venv/test.done
	$(BIN)/python -m tests.bad_input 10000

lint: .venv/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/demo.done: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[plot]"
	touch $@

.venv/test.done: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

clean:
	rm -rf .venv .cache demo.wav demo.png
