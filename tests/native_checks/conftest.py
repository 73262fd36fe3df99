"""Builds that several files of checks share; each is made once in a run."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from native_checks.tools import AS_INSTALLED, PLAIN, PROGRAMS, Build, Recipe, build, compile_all, link


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], Build]:
    @cache
    def build_once(recipe: Recipe) -> Build:
        return build(recipe, tmp_path_factory.mktemp("build"))

    return build_once


@pytest.fixture(scope="session")
def check_kernels(built: Callable[[Recipe], Build]) -> Path:
    """The check program, compiled as the Python module is."""
    return built(PLAIN["gcc"]).program


@pytest.fixture(scope="session")
def with_sha_ni(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Build], Path]:
    """The check program, and in it what emulates the SHA instructions of x86-64 where the processor has none."""

    def link_emulator(kernels: Build) -> Path:
        folder = tmp_path_factory.mktemp("sha_ni")
        emulator = compile_all(Recipe("gcc", AS_INSTALLED), [PROGRAMS / "trap_sha_ni.c"], folder)
        return link(kernels.recipe, [*kernels.objects, *emulator], folder / "check_kernels")

    return link_emulator


@pytest.fixture(scope="session")
def cpu_features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that prints which of the kernels' features a processor has."""
    folder, recipe = tmp_path_factory.mktemp("features"), Recipe("gcc", AS_INSTALLED)
    return link(recipe, compile_all(recipe, [PROGRAMS / "cpu_features.c"], folder), folder / "cpu_features")
