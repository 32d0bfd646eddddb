# The everyday commands. They do all the set-up themselves; dev.py says how.
.PHONY: demo test check setup

PYTHON ?= python3

demo test check setup:
	@$(PYTHON) dev.py $@
