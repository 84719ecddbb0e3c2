# make book          set up, execute the chapters, render _build/html   (PROFILE=demo|natsound|paper;
#                    PUBLIC=1 leaves out sounds without a licence)
# make pdf           the book as one PDF, printed by Chromium
# make test          set up, run the tests                              (SLOW=1 for the slow ones)
# make test-browser  the rendered book in a browser
# make labs          exercises, solutions and an nbgrader course, in _build/labs
# make bench         one table of what a device does                   (DEVICE=auto|cpu|cuda)
# make env           set up only                                        (PYTHON=python3.12 for another)

PYTHON ?= python3
PROFILE ?= demo
DEVICE ?= auto
BIN = .venv/bin
READY = .venv/.ready

.PHONY: book pdf labs test test-browser env lint bench clean

book: $(READY)
	$(BIN)/brainbook book --profile $(PROFILE) $(if $(filter-out 0,$(PUBLIC)),--public)

pdf: book
	$(BIN)/brainbook pdf

test: $(READY)
	$(BIN)/python -m pytest $(if $(SLOW),--slow)

test-browser: book
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt -e '.[browser]'
	{ command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null \
	  || $(BIN)/playwright install chromium
	$(BIN)/python -m pytest tests/browser

labs: $(READY)
	$(BIN)/brainbook labs --profile $(PROFILE)

env: $(READY)

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; found $$($(PYTHON) --version). Try make env PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $(READY)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(READY)
	$(BIN)/python benchmarks/device.py --device $(DEVICE)

clean:
	rm -rf _build book/chapters
