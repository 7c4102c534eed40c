# `make demo` and `make test` need nothing but git, make, and root or sudo: they install the rest.
VENV    := .venv
PYTHON  := $(VENV)/bin/python
STAMP   := $(VENV)/.installed
LISTS   := packages/debian.txt packages/debian-sandbox.txt
SUDO    := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: demo test test-all lint format docs setup clean

demo: $(STAMP)
	$(PYTHON) -m mover demo

test: $(STAMP)
	$(PYTHON) -m pytest -n 4

# With what takes long: hundreds of kills, 20 GB runs.
test-all: $(STAMP)
	$(PYTHON) -m pytest -n 4 -m "long or not long"

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(PYTHON) -m mypy

format: $(STAMP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

setup: $(STAMP)

docs: $(STAMP)
	$(PYTHON) docs/generate.py

# gfal2 comes from Debian only, so the venv sees the distribution's packages.
$(STAMP): pyproject.toml packages/constraints.txt $(LISTS)
	@missing=$$(for p in $$(sed 's/#.*//' $(LISTS)); do \
	    dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	    $(SUDO) apt-get -q update && \
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $$missing; \
	fi
	/usr/bin/python3 -m venv --system-site-packages $(VENV)
	# In the environment, so that what packages are built with is pinned too.
	PIP_CONSTRAINT=$(CURDIR)/packages/constraints.txt $(PYTHON) -m pip install -q --disable-pip-version-check -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV)
