# SPDX-License-Identifier: MIT
"""THIRD_PARTY.md names every dependency; versions are said once or agree."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def name_of(requirement):
    return re.match(r"[A-Za-z0-9._-]+", requirement).group().lower()


def required():
    for file in sorted((ROOT / "cmake").glob("requirements*.txt")):
        for line in file.read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                yield name_of(line)
    project = PROJECT["project"]
    for requirement in [*PROJECT["build-system"]["requires"], *project["dependencies"], *sum(project["optional-dependencies"].values(), [])]:
        yield name_of(requirement)


def test_every_dependency_has_its_licence():
    rows = [line.split("|")[1].strip().lower() for line in (ROOT / "THIRD_PARTY.md").read_text().splitlines() if line.startswith("|")]
    assert sorted(set(required()) - set(rows)) == []


def test_extras_are_what_is_compiled_against():
    built = [line.strip() for file in (ROOT / "cmake").glob("requirements*.txt") for line in file.read_text().splitlines()]
    extras = PROJECT["project"]["optional-dependencies"]
    assert set(extras["lmp"] + extras["train"]) <= set(built)
    assert PROJECT["tool"]["scikit-build"]["overrides"][0]["build"]["requires"] == extras["train"]


def test_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    version = re.search(r"project\(macekit VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text()).group(1)
    assert citation["cff-version"] == "1.2.0" and citation["version"] == version
    assert {"title", "message", "authors"} <= set(citation)
    for reference in citation["references"]:
        assert {"type", "title", "authors", "year"} <= set(reference) and ("doi" in reference or "identifiers" in reference), reference["title"]
