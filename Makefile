# The two commands that matter: `make demo` and `make test`. Both set everything up when needed.
PYTHON ?= python3
RUN = ./scripts/with_env

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint clean

help:
	@echo 'make demo               set up, then render a street, track it in a real ROS 2 graph, score it'
	@echo 'make demo INPUT=path    the same with your video, rosbag or image folder'
	@echo 'make test               set up, then run the tests (ARGS="-k name" to choose)'
	@echo 'make lint               set up, then check style and types'
	@echo 'make setup              only set up: .venv, pinned packages, ROS 2 interfaces'
	@echo 'make clean              remove .venv, build, install, log and out'

setup:
	@$(PYTHON) scripts/setup_environment.py

# INPUT reaches the recipe through the environment, so that any file name works.
export INPUT ARGS
demo: setup
	@$(RUN) python -m masa_ros demo --out out/demo $${INPUT:+--input "$$INPUT"} $$ARGS

# A sourced ROS 2 brings pytest plugins for other pytest versions; load only ours.
test: setup
	@PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 $(RUN) python -m pytest -p pytest_timeout $$ARGS

lint: setup
	@$(RUN) ruff check .
	@$(RUN) ament_flake8 --config .flake8 masa_ros scripts test launch setup.py
	@$(RUN) ament_pep257 masa_ros scripts launch setup.py
	@$(RUN) mypy masa_ros
	@$(RUN) mypy test
	@$(RUN) codespell
	@$(RUN) python scripts/check_files.py
	@$(RUN) python -m pytest -q -p no:cacheprovider test/test_architecture.py

clean:
	rm -rf "$$(readlink -f .venv)" .venv build install log out
