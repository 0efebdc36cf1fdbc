# make demo   installs what is missing, builds, trains a potential, runs LAMMPS and ASE with it, draws two pictures
# make test   the same set-up, then every test
# eval "$(make -s env)"   puts macekit, lmp and `import macekit` on your path
.DEFAULT_GOAL := help
.PHONY: help build demo test env clean
SHELL := /bin/bash
BUILD ?= build
JOBS ?= $(shell nproc)

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -n 3

build:
	@BUILD=$(BUILD) JOBS=$(JOBS) cmake/build.sh

demo: build
	@BUILD=$(BUILD) examples/water/run.sh

test: build
	@BUILD=$(BUILD) tests/run.sh

env:
	@BUILD=$(BUILD) cmake/environment.sh

clean:
	rm -rf $(BUILD)
