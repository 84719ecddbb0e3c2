# make book   set up, execute the chapters, render _build/html      (PROFILE=demo|natsound|paper)
# make test   set up, run the tests                                 (SLOW=1 for the slow ones)
# make env    set up only                                           (PYTHON=python3.12 for another)

PYTHON ?= python3
PROFILE ?= demo
BIN = .venv/bin
READY = .venv/.ready

.PHONY: book test env lint bench clean

book: $(READY)
	$(BIN)/brainbook book --profile $(PROFILE)

test: $(READY)
	$(BIN)/python -m pytest $(if $(SLOW),--slow)

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
	for script in benchmarks/*.py; do $(BIN)/python $$script; done

clean:
	rm -rf _build book/chapters
