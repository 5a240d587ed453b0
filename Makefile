# Two commands: `make reproduce` and `make test`. Both make .venv when it is missing and can be run again at any time.
PYTHON ?= python3
RUN := .venv/bin
OUT ?= runs/embedded

.PHONY: help reproduce test test-all mutants lint docs results bench clean

help:
	@echo "make reproduce   install, run the main job on the embedded ladder, print where the report is (OUT=$(OUT))"
	@echo "make test        install the test extras and run lint, types and tests"
	@echo "make test-all    the same with the opt-in tier and TRL: run it before a release"
	@echo "make mutants     plant some 5,000 faults in the continuous floor, one at a time, and count those the tests find"
	@echo "make docs        regenerate docs/ledger.md, docs/notation.md, notebooks and the README's numbers"
	@echo "make results     copy the numbers and the picture of OUT into docs/ and regenerate"
	@echo "make bench       benchmarks: costates, groups, credit matrices, GRPO against TRL, the split of make reproduce"

reproduce:
	@$(PYTHON) tools/make_venv.py checkpoints
	@$(RUN)/vgrad reproduce --out $(OUT)

test:
	@$(PYTHON) tools/make_venv.py test
	@$(MAKE) --no-print-directory lint
	@$(RUN)/python -m pytest -n auto --dist worksteal

test-all:
	@$(PYTHON) tools/make_venv.py dev
	@$(MAKE) --no-print-directory lint
	@$(RUN)/python -m pytest -n auto --dist worksteal --all

mutants:
	@$(PYTHON) tools/make_venv.py mutation
	@$(RUN)/python tools/mutants.py

lint:
	@$(RUN)/ruff check . && $(RUN)/ruff format --check . && $(RUN)/mypy

docs:
	@$(PYTHON) tools/make_venv.py test
	@$(RUN)/python tools/docs.py

results:
	@$(PYTHON) tools/make_venv.py test
	@$(RUN)/python tools/results.py $(OUT)
	@$(RUN)/python tools/docs.py

bench:
	@$(PYTHON) tools/make_venv.py dev
	@$(RUN)/python benchmarks/costate.py
	@$(RUN)/python benchmarks/groups.py
	@$(RUN)/python benchmarks/credit_matrix.py
	@$(RUN)/python benchmarks/grpo.py
	@$(RUN)/python benchmarks/trl_callback.py
	@$(RUN)/python benchmarks/reproduce.py
	@$(RUN)/python benchmarks/sweep.py

clean:
	rm -rf .venv runs mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis
