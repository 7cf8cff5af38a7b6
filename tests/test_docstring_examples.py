"""The examples in docstrings give the values that they state."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

PACKAGES = ("geocrodino.losses", "geocrodino.evaluation", "geocrodino.geo.rasters")
MODULES = [
    f"{package}.{module.name}"
    for package in PACKAGES
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__)
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_loss_has_an_example():
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in MODULES:
        module = importlib.import_module(name)
        with_examples = {t.name.rpartition(".")[2] for t in finder.find(module) if t.examples}
        losses = {n for n in vars(module) if n.endswith(("_loss", "_contrast")) and vars(module)[n].__module__ == name}
        assert losses <= with_examples
