# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
JOBS ?= 2
STAMP := $(VENV)/.installed

export DO_NOT_TRACK := true
# Tests run one to a core: threads of their own would only wait for each other (ten times as long in the worst case).
test test-all: export OMP_NUM_THREADS := 1
test test-all: export OPENBLAS_NUM_THREADS := 1

.PHONY: demo test test-all check audit env format clean

env: $(STAMP)

# Torch goes first: pinned like this, pip takes a CPU build where it finds one.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $(STAMP)

demo: env
	$(BIN)/sluice demo

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/pytest -n $(JOBS) --dist loadfile -m "not long and not browser and not dft and not faults"

# what starts no servers runs on all cores; what is timed, killed or drawn has the machine to itself
test-all: test
	$(BIN)/pytest -n $(JOBS) -m "long and not server"
	$(BIN)/pytest -m "(long and server) or browser or dft or faults"

# Known weaknesses of what is installed (asks the vulnerability database of PyPI), and its bill of materials. In an
# environment of their own: what looks at the dependencies must not change them.
AUDIT := $(VENV)/audit
audit: env
	test -x $(AUDIT)/bin/pip-audit || $(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit cyclonedx-bom
	mkdir -p build
	$(AUDIT)/bin/cyclonedx-py environment --output-file build/sbom.json $(BIN)/python
	$(AUDIT)/bin/pip-audit --skip-editable --path $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
