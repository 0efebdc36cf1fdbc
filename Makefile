# make demo   installs what is missing, builds, trains a potential, runs LAMMPS and ASE with it, draws two pictures
# make test   the same set-up, then every test
# eval "$(make -s env)"   puts macekit, lmp and `import macekit` on your path
# make wheel  packs a wheel into build/dist: pip install macekit[lmp] then needs no compiler
# make cuda   builds macekit for NVIDIA GPUs into build-cuda, the trainer included
# make docs   makes the documentation as a site, build/site/index.html
.DEFAULT_GOAL := help
.PHONY: help build demo test env wheel cuda docs clean
SHELL := /bin/bash
BUILD ?= build
BUILD_CUDA ?= build-cuda
JOBS ?= $(shell nproc)

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -n 6

build:
	@BUILD=$(BUILD) JOBS=$(JOBS) cmake/build.sh

demo:
	@BUILD=$(BUILD) JOBS=$(JOBS) cmake/build.sh macekit_core macekit_training_module macekit_pair_style
	@BUILD=$(BUILD) examples/water/run.sh

test: build
	@BUILD_CUDA=$(BUILD_CUDA) JOBS=$(JOBS) cmake/cuda.sh --check
	@BUILD=$(BUILD) cmake/wheel.sh
	@BUILD=$(BUILD) tests/run.sh

wheel:
	@BUILD=$(BUILD) JOBS=$(JOBS) cmake/build.sh macekit_wheel
	@BUILD=$(BUILD) cmake/wheel.sh

cuda:
	@BUILD_CUDA=$(BUILD_CUDA) JOBS=$(JOBS) cmake/cuda.sh

docs: build
	@eval "$$(BUILD=$(BUILD) cmake/environment.sh)" && NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet --site-dir $(BUILD)/site
	@echo "$(BUILD)/site/index.html"

env:
	@BUILD=$(BUILD) cmake/environment.sh

clean:
	rm -rf $(BUILD) $(BUILD_CUDA)
