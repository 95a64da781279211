# make demo: the main job on the CPU, without torch.   make test: lint, types and tests.
PYTHON ?= python3
DEMO = .venv-demo/bin
DEV = .venv/bin

.PHONY: demo test lint clean

demo: .venv-demo/ready
	AWN_BUNDLE=build/demo/bundle $(DEMO)/python tools/build_engines.py --widths 0.25:1.0:0.01
	AWN_BUNDLE=build/demo/bundle $(DEMO)/python tools/profile_device.py
	AWN_BUNDLE=build/demo/bundle $(DEMO)/python examples/robot_loop.py --out build/demo/robot_loop.csv

test: lint
	$(DEV)/python -m pytest --cov --cov-report=term

lint: .venv/ready
	$(DEV)/ruff check .
	$(DEV)/ruff format --check .
	$(DEV)/mypy

clean:
	rm -rf build .venv .venv-demo

# An environment is ready when its install went through; a change of what is to be installed makes it anew.
.venv-demo/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv-demo
	$(DEMO)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(DEMO)/python -m pip install --quiet --editable ".[tools]"
	touch $@

.venv/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(DEV)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(DEV)/python -m pip install --quiet --editable ".[dev]"
	touch $@
