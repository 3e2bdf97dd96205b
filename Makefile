# make demo: the main job, from nothing.  make test: the tests, from nothing.  SECONDS=0 make demo runs until Ctrl-C.
# make soak: the node under load for MINUTES (10), and what must hold then.
PYTHON ?= python3
# Below an activated virtual environment: what is installed in that one alone, ours will not see.
BASE_PYTHON := $(shell $(PYTHON) -c 'import sys; print(sys._base_executable)')
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --constraint $(VENV)/constraints.txt
SECONDS ?= 20
MINUTES ?= 10

# A sourced ROS 2 is used as it is; where there is none, PyPI's wheels of ROS 2 Kilted serve.
HAVE_ROS := $(shell $(BASE_PYTHON) -c 'import rclpy' 2>/dev/null && echo yes)
ifeq ($(HAVE_ROS),yes)
VENV_FLAGS := --system-site-packages
RUN_EXTRAS := runtime,sim
# ROS's message modules are compiled against the system's NumPy and work with later ones of its major version (Humble's is
# too old for onnxruntime); its pytest plugins are written for pytest 7.
NUMPY := $(shell $(BASE_PYTHON) -c 'import numpy; print(numpy.__version__)')
CONSTRAINTS := 'numpy>=$(NUMPY),<$(shell expr $(firstword $(subst ., ,$(NUMPY))) + 1)' 'pytest<8'
else
RUN_EXTRAS := runtime,sim,ros
endif

.PHONY: demo test lint bench soak clean

demo: $(VENV)/run.stamp
	DEMO_SECONDS=$(SECONDS) $(PY) -m dar_ros.ros.demo

test: $(VENV)/test.stamp
	$(PY) -m pytest

lint: $(VENV)/test.stamp
	$(PY) -m ruff check . && $(PY) -m ruff format --check .

bench: $(VENV)/bench.stamp
	$(PY) -m dar_ros.cli benchmark --check

soak: $(VENV)/run.stamp
	$(PY) -m dar_ros.ros.soak --minutes $(MINUTES)

clean:
	rm -rf $(VENV) build install log demo *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	$(BASE_PYTHON) -m venv $(VENV_FLAGS) $(VENV) || { rm -rf $(VENV); \
	  sh scripts/apt-install.sh python3-venv && $(BASE_PYTHON) -m venv $(VENV_FLAGS) $(VENV); }

# Of stereodemo only the pictures are used: its own Python versions (not 3.12) do not matter.
$(VENV)/run.stamp: setup.py | $(VENV)/bin/python
	sh scripts/apt-install.sh libosmesa6
	printf '%s\n' $(CONSTRAINTS) > $(VENV)/constraints.txt
	$(PIP) --editable '.[$(RUN_EXTRAS)]'
	$(PIP) --no-deps --ignore-requires-python stereodemo==0.7
	touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp
	sh scripts/apt-install.sh sweethome3d-furniture
	$(PIP) --editable '.[$(RUN_EXTRAS),train,dev,test]'
	touch $@

$(VENV)/bench.stamp: $(VENV)/run.stamp
	$(PIP) --editable '.[$(RUN_EXTRAS),train,bench]'
	touch $@
