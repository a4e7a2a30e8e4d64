PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
QUICK := not slow and not learns and not network

.PHONY: demo demo-from-scratch test test-all learn lint bench bench-connectors bench-from-scratch

# The first run: the environment, then the offline demonstration.
demo: $(READY)
	$(BIN)/isthmus demo

# The same, after training the small vision and language models that are otherwise shipped.
demo-from-scratch: $(READY)
	$(BIN)/isthmus train tiny/scenes_vision --out runs/scenes_vision
	$(BIN)/isthmus train tiny/scenes_language --out runs/scenes_language
	$(BIN)/isthmus train demo model.vision.weights=./runs/scenes_vision/final model.language.name=./runs/scenes_language/final/language --out runs/demo-from-scratch
	$(BIN)/isthmus evaluate runs/demo-from-scratch

test: lint
	$(BIN)/python -m pytest -q -m "$(QUICK)"

test-all: lint
	$(BIN)/python -m pytest -q --timeout=1800 -m "not learns and not network"
	$(MAKE) learn

# Training is several times faster without the shape checks, and models this small on one thread: on two they wait for each other.
learn: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --timeout=1800 -o addopts="--import-mode=importlib --strict-markers" -m learns

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/pyrefly check --summarize-errors

# Memory and time; pages go to docs/results. `bench/flickr8k.py` needs trained runs and is called by hand.
bench: $(READY)
	$(BIN)/python bench/encoder.py
	$(BIN)/python bench/truncation.py
	$(BIN)/python bench/full_width.py
	$(BIN)/python bench/training_speed.py
	$(BIN)/python bench/large_batch.py

# 27 runs of about two minutes; when stopped, it goes on with the run it was at.
bench-connectors: $(READY)
	$(BIN)/python bench/connectors.py

# 18 runs of about five minutes; when stopped, it goes on with the run it was at. Needs Flickr8k (ISTHMUS_SHARED).
bench-from-scratch: $(READY)
	$(BIN)/python bench/from_scratch.py

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@
