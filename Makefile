# Two commands on a fresh machine with Python 3.11 and make: `make demo` and `make test`.
# Each builds a virtual environment of its own. PYTHON= picks the interpreter; pip's own settings
# (PIP_FIND_LINKS, PIP_NO_INDEX, …) say where packages come from.

PYTHON ?= python3
DEMO := .venv-demo
TEST := .venv-test
# Python 3.12 and 3.13 have no wheels of MindSpore: everything that needs none is tested there, with NumPy 2.
NEWER := $(shell $(PYTHON) -c "import sys; print(*{12, 13} & {sys.version_info[1]})" 2>/dev/null)
CONSTRAINTS := $(if $(NEWER),constraints-newer.txt,constraints.txt)
INSTALL := -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)
INPUTS := setup.py pyproject.toml $(CONSTRAINTS)

.PHONY: demo test quick lint docs notebooks hardening clean

demo: $(DEMO)/ready
	$(DEMO)/bin/earthsr sample dem runs/demo-data --overwrite
	$(DEMO)/bin/earthsr train configs/dem_srnet_demo.yaml --backend torch --overwrite
	$(DEMO)/bin/earthsr evaluate runs/demo --backend torch

test: lint
	$(TEST)/bin/python -m pytest --cov
	$(MAKE) hardening

# A minute of what tools/hardening.py does for hours: kills, and mutated inputs; MINUTES= for more, SEED= for others.
MINUTES ?= 0.5
SEED ?= 1
hardening: $(TEST)/ready
	$(TEST)/bin/python tools/hardening.py kill --minutes $(MINUTES) --seed $(SEED)
	$(TEST)/bin/python tools/hardening.py fuzz --minutes $(MINUTES) --seed $(SEED)

quick: $(TEST)/ready
	$(TEST)/bin/python -m pytest -m "not slow and not docs"

docs: $(TEST)/ready
	NO_MKDOCS_2_WARNING=1 $(TEST)/bin/mkdocs build --strict

notebooks: $(TEST)/ready
	$(TEST)/bin/python tools/notebooks.py build

lint: $(TEST)/ready
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(if $(NEWER),@echo "types are checked with the packages of constraints.txt alone",$(TEST)/bin/mypy)
	$(TEST)/bin/lint-imports
	$(TEST)/bin/python tools/notebooks.py check

$(DEMO)/ready: $(INPUTS)
	@$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'earthsr needs Python 3.11 or newer; found ' + sys.version.split()[0] + ': set PYTHON=')"
	$(PYTHON) -m venv --clear $(DEMO)
	$(DEMO)/bin/python $(INSTALL) --editable '.[torch,page]'
	touch $@

$(TEST)/ready: $(INPUTS)
	@$(PYTHON) -c "import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else 'the tests run with Python 3.11, and without MindSpore with 3.12 and 3.13; found ' + sys.version.split()[0] + ': set PYTHON=')"
	$(PYTHON) -m venv --clear $(TEST)
	$(TEST)/bin/python $(INSTALL) --editable '.[torch,$(if $(NEWER),,mindspore,)dev]'
	touch $@

clean:
	rm -rf $(DEMO) $(TEST) build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage
