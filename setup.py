"""Finds the packages; all else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["lit_*"]), "lit_core.configs"])
