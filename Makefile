# `make demo` and `make test` need nothing but git, make, and root or sudo: they install the rest.
VENV    := .venv
PYTHON  := $(VENV)/bin/python
STAMP   := $(VENV)/.installed
ANSIBLE := $(VENV)/.ansible-installed
WHEELS  := dist/wheelhouse
# Who has nothing left to do takes tests from who has much: the slow ones stand together.
PARALLEL := -n 4 --dist worksteal
PROMTOOL := $(VENV)/bin/promtool
LISTS   := packages/debian.txt packages/debian-sandbox.txt
SUDO    := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: demo test test-all lint lint-ansible format docs setup appliance wheelhouse clean

demo: $(STAMP)
	$(PYTHON) -m mover demo

test: $(STAMP) $(PROMTOOL)
	$(PYTHON) -m pytest $(PARALLEL)

# With what takes long: hundreds of kills, 20 GB runs.
test-all: $(STAMP) $(PROMTOOL)
	$(PYTHON) -m pytest $(PARALLEL) -m "long or not long"

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(PYTHON) -m mypy
	$(MAKE) --no-print-directory lint-ansible

# It calls other programs of Ansible by name.
lint-ansible: export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
lint-ansible: $(ANSIBLE)
	$(VENV)/bin/yamllint --strict .yamllint.yml ansible
	$(VENV)/bin/ansible-lint --offline --profile production -q ansible

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

# What installs a control-room box from here: Ansible, and all wheels.
appliance: $(ANSIBLE) wheelhouse

$(ANSIBLE): $(STAMP)
	PIP_CONSTRAINT=$(CURDIR)/packages/constraints.txt $(PYTHON) -m pip install -q --disable-pip-version-check -e '.[appliance]'
	touch $@

# The mover and all that it needs of PyPI, for machines like this one; the list comes last, and stands for all of it.
wheelhouse: $(STAMP)
	rm -rf $(WHEELS)
	PIP_CONSTRAINT=$(CURDIR)/packages/constraints.txt $(PYTHON) -m pip wheel -q --disable-pip-version-check -w $(WHEELS) .
	cp packages/constraints.txt $(WHEELS)/
	cd $(WHEELS) && sha256sum constraints.txt *.whl > .sums && mv .sums SHA256SUMS

# It tests the alert rules. Out of its package only: Debian would start a Prometheus for all the network to see. Without
# it, those tests are skipped.
$(PROMTOOL): $(STAMP)
	-cd $(VENV) && apt-get -q download prometheus && dpkg-deb --fsys-tarfile prometheus_*.deb \
	    | tar -xO ./usr/bin/promtool > promtool.new && chmod +x promtool.new && mv promtool.new bin/promtool
	rm -f $(VENV)/prometheus_*.deb $(VENV)/promtool.new

clean:
	rm -rf $(VENV)
