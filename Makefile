# make demo: make a short clip, tell its genre, draw its time line.  make test: all tests and checks.
# make fuzz: 10,000 damaged files.
# All need python3 (>= 3.11) alone, and put what they install into .venv. With npm, the page gets what it takes to listen
# in the browser alone; with Chromium, it is tested.
PYTHON ?= python3
BIN := .venv/bin
export MUSICCLASS_CACHE ?= $(CURDIR)/.cache

.PHONY: demo test lint fuzz clean
demo: .venv/demo.done
	$(BIN)/python scripts/make_clip.py demo.wav
	$(BIN)/musicclass predict demo.wav --top 5 --min-confidence 0 --plot demo.png
	@echo "To see it in a browser: $(BIN)/musicclass serve, and drop demo.wav or songs of yours on the page."

test: lint
	$(BIN)/pytest -q

fuzz: .venv/test.done
	$(BIN)/python -m tests.bad_input 10000

lint: .venv/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/demo.done: pyproject.toml hatch_build.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[plot,web]"
	$(BIN)/python hatch_build.py
	touch $@

.venv/test.done: pyproject.toml hatch_build.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	$(BIN)/python hatch_build.py
	touch $@

clean:
	rm -rf .venv .cache demo.wav demo.png src/musicclass/web/static/ort
