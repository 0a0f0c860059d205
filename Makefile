# `make demo` and `make test` need nothing but Python 3.11 to 3.13 and make: they set up .venv themselves, once.
#   PYTHON=python3.12          the interpreter to build .venv with
#   TORCH=torch==2.13.0        the torch to install
#   TORCH_INDEX=URL            where to look for it first; default: the builds for CPUs, which are small. Where the index does not
#                              answer or lacks the version, PyPI's build is taken.
#   REAL=FOLDER                where `make real` puts models; default: ~/.cache/longreach/real
PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TRANSFORMERS_LOW ?= 5.20.0
LOW_TESTS ?= tests/test_imports.py tests/test_conformance.py tests/core tests/positions tests/attention tests/cache tests/engine tests/decoding tests/checkpoints tests/library tests/conversation
METHOD_TESTS := tests/test_conformance.py tests/core tests/attention tests/cache tests/positions tests/training/test_samplers.py
REAL ?= $(HOME)/.cache/longreach/real
SMOLLM2_METHODS := --only stock --only self_extend:neighbours=1024,group=5 --only rerope:window_size=4096 --only yarn:factor=auto
GEMMA_METHODS := --only stock --only yarn:factor=auto
PYTEST ?= pytest -n auto --maxprocesses 8

BIN := .venv/bin
READY := .venv/.ready
READY_LOW := .venv-low/.ready
READY_DOCS := .venv/.ready-docs
PIP := -m pip --disable-pip-version-check
# Tests start many processes, which would all compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-low check lint bench real evidence-real docs site wheel clean

demo: $(READY)
	$(BIN)/longreach stretch nano --to 2048 --out demo/nano-2k

test: $(READY)
	$(BIN)/python -m $(PYTEST)

# All that concerns one method: make check METHOD=yarn
check: $(READY)
	@test -n "$(METHOD)" || { echo "make check METHOD=name"; exit 2; }
	$(BIN)/python -m pytest -q --method $(METHOD) $(METHOD_TESTS)

# The low end of the transformers range; everything else is as in .venv. Of the cases of each test one in twenty: what another
# release breaks, it breaks for many.
test-low: $(READY_LOW)
	.venv-low/bin/python -m $(PYTEST) --thin 20 $(LOW_TESTS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/run.py

# Published models from the package index, 0.9 GB in all, as folders outside the repository; each has a SOURCE.txt with its licence.
real: $(READY)
	$(BIN)/python benchmarks/real_models.py --out "$(REAL)"

# Rows of evidence of these models, hours on two cores: what was measured is kept, so that a stopped run goes on.
evidence-real: real
	$(BIN)/python benchmarks/lengths.py --model "$(REAL)/smollm2-135m-instruct" --to 32768 --windows 2 $(SMOLLM2_METHODS)
	$(BIN)/python benchmarks/lengths.py --model "$(REAL)/gemma-3-270m" --to 65536 --windows 2 $(GEMMA_METHODS)
	$(BIN)/python experiments/minilm.py --model "$(REAL)/minilm-l6-v2" --name minilm-l6-v2 --evidence docs/evidence
	$(BIN)/python experiments/order.py --model "$(REAL)/smollm2-135m-instruct" --evidence docs/evidence

# Everything that is written by a program: the pages of methods and API, the evidence, the numbers in guides.
docs: $(READY)
	$(BIN)/python docs/generate.py

# The same as a site with a page for each method, to open at site/index.html. A link that leads nowhere is an error.
site: $(READY_DOCS)
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --nitpicky --jobs auto --doctree-dir site/.doctrees docs site
	@echo "site/index.html and $$(find site -name '*.html' | wc -l) pages in all"

# The package as users get it: in fresh environments outside this folder, with every Python of its range that is on this machine.
wheel: $(READY)
	$(BIN)/python .ci/wheel.py

clean:
	rm -rf .venv .venv-low demo longreach-results site docs/methods docs/project

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("longreach needs Python 3.11 to 3.13: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python $(PIP) install --no-deps --retries 0 --timeout 15 --index-url $(TORCH_INDEX) "$(TORCH)" \
		|| $(BIN)/python $(PIP) install --no-deps "$(TORCH)"
	$(BIN)/python $(PIP) install -c constraints.txt -e ".[dev]"
	touch $@

$(READY_DOCS): $(READY)
	$(BIN)/python $(PIP) install -c constraints.txt -e ".[docs]"
	touch $@

# Sees the packages of .venv behind its own, so that only transformers is installed twice.
$(READY_LOW): $(READY) Makefile
	test -x .venv-low/bin/python || $(BIN)/python -m venv .venv-low
	.venv-low/bin/python $(PIP) install --no-compile --no-deps "transformers==$(TRANSFORMERS_LOW)"
	.venv-low/bin/python -c 'import pathlib, sysconfig; lib = sysconfig.get_paths()["purelib"]; \
		pathlib.Path(lib, "shared.pth").write_text(lib.replace(".venv-low", ".venv") + "\n" + str(pathlib.Path("src").resolve()) + "\n")'
	.venv-low/bin/python -c 'import transformers; assert transformers.__version__ == "$(TRANSFORMERS_LOW)", transformers.__version__'
	touch $@
