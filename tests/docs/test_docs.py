# SPDX-License-Identifier: MIT
"""The documentation: its examples run, its commands and options exist, its links lead somewhere, its site builds without a warning.

A fenced block of sh, python or lammps runs, the blocks of a page one after the other in one folder, unless the line before it says
`<!-- not run: REASON -->`. The folder has the files that the examples name (`prepare_folder`). A LAMMPS block that is part of an input gets the rest around it.
"""

import html.parser
import importlib.util
import io
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from urllib.parse import unquote

import ase.build
import ase.io
import numpy as np
import pytest
import yaml

from macekit import MACECalculator
from macekit.cli import VERBS, main
from macekit.potentials import find

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", "pair_style/README.md", "examples/water/README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
RUN, SHOWN = ("sh", "python", "lammps"), ("", "yaml", "cpp", "cmake", "json")
COMMAND = re.compile(r"^\s*(macekit|make|lmp|mpirun|python|pip|pair_style|pair_coeff|import|from)\b(?! \[)", re.MULTILINE)


def markdown_files():
    skip = re.compile(r"^(build|\.|venv)|/(run|_deps)/")
    return [p for p in sorted(ROOT.rglob("*.md")) if not skip.search(p.relative_to(ROOT).as_posix())]


def blocks(page):
    """(line, language, reason not to run it or None, text) of each fenced block."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [(text.count("\n", 0, m.start("text")), m["language"], m["reason"], m["text"]) for m in BLOCK.finditer(text)]


# Examples


def test_every_block_says_what_it_is():
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert text.count("\n```") == 2 * len(blocks(page)) - text.startswith("```"), f"{page}: a fenced block is not closed, or indented"
        for line, language, reason, content in blocks(page):
            assert language in RUN + SHOWN, f"{page} line {line}: unknown language {language}"
            assert reason is None or language in RUN, f"{page} line {line}: a block of {language or 'no language'} is never run; remove the comment"
            assert language or " ...\n" in content or not COMMAND.search(content), f"{page} line {line}: commands need a language, so that they run: {', '.join(RUN)}"
        assert len(re.findall("^<!-- not run:", text, re.MULTILINE)) == sum(reason is not None for _, _, reason, _ in blocks(page)), f"{page}: `not run` must stand right before a block"


@pytest.fixture(scope="session")
def example_folder(tmp_path_factory):
    """The files that examples name, small; copied for each page."""
    folder = tmp_path_factory.mktemp("examples")
    rng = np.random.default_rng(1)
    shutil.copy(find("silicon"), folder / "si.mace")
    crystals = [ase.build.bulk("Si", a=a) for a in (5.3, 5.4, 5.5)]
    ase.io.write(folder / "POSCAR", crystals[1])
    for name, atoms in zip(("a.cif", "b.cif"), crystals):
        ase.io.write(folder / name, atoms)
    frames = []
    for k in range(10):
        atoms = ase.build.bulk("Si", a=5.4)
        atoms.rattle(0.1, rng=rng)
        atoms.calc = MACECalculator("silicon")
        energy = atoms.get_potential_energy()
        atoms.info.update(REF_energy=energy + rng.normal(0, 0.01), REF_stress=atoms.get_stress(), MACE_energy=energy)
        atoms.arrays.update(REF_forces=atoms.get_forces(), MACE_forces=atoms.get_forces())
        atoms.calc = None
        frames.append(atoms)
    for name in ("train", "valid", "in", "new", "old", "test", "old_test", "candidates"):
        ase.io.write(folder / f"{name}.extxyz", frames if name in ("train", "valid") else frames[:4])
    small = {"train_file": "train.extxyz", "max_num_epochs": 1, "plot": False, "default_dtype": "float32"}
    (folder / "config.yaml").write_text(yaml.safe_dump({"name": "small", **small, "num_channels": 4, "max_L": 0, "r_max": 4.0}))
    (folder / "new.yaml").write_text(yaml.safe_dump({"name": "new", "train_file": "new.extxyz", "max_num_epochs": 1, "plot": False}))
    for name in ("old", "a", "b", "c"):
        shutil.copy(find("silicon"), folder / f"{name}.mace")
    assert main(["convert", str(folder / "si.mace"), "-o", str(folder / "MACE_run-123.model")]) == 0
    shutil.copy(folder / "MACE_run-123.model", folder / "X.model")
    crystal = ase.build.bulk("Si", a=5.467, cubic=True) * (2, 2, 2)
    crystal.rattle(0.02, rng=rng)
    ase.io.write(folder / "si.data", crystal, format="lammps-data", masses=True, units="metal")
    water = folder / "examples" / "water"
    water.mkdir(parents=True)
    for name in ("config.yaml", "train.extxyz", "test.extxyz"):
        shutil.copy(ROOT / "examples" / "water" / name, water)
    programs = folder / "bin"
    programs.mkdir()
    (programs / "macekit").write_text(f"#!/bin/sh\nexec '{sys.executable}' -m macekit \"$@\"\n")
    (programs / "python").write_text(f"#!/bin/sh\nexec '{sys.executable}' \"$@\"\n")
    for name in ("macekit", "python"):
        (programs / name).chmod(0o755)
    return folder


# Names that a reader of an example has.
DRIVER = """
import json, subprocess, sys
import numpy as np
namespace = {"__name__": "__main__", "rank": 0, "num_ranks": 2, "num_atoms": np.arange(10, 410) % 40 + 1, "num_edges": 40 * (np.arange(10, 410) % 40 + 1), "dataset": list(range(400))}
for place, language, text in json.load(open("blocks.json")):
    print(f"--- {place}", flush=True)
    if language == "python":
        exec(compile(text, place, "exec"), namespace)
    elif subprocess.run(["bash", "-euo", "pipefail", "-c", text]).returncode:
        sys.exit(f"{place}: exit code not 0")
"""


def whole_input(text):
    """A LAMMPS input around the lines of an example."""
    before, after = "", ""
    if "read_data" not in text and "create_atoms" not in text:
        before = "".join(f"{line}\n" for line in ("units metal", "atom_style atomic", "read_data si.data") if line.split()[0] not in re.findall(r"^\w+", text, re.MULTILINE))
    if "pair_style" not in text:
        before += "pair_style mace\npair_coeff * * si.mace Si\n"
    lines = text.splitlines()
    if before and lines[0].split()[0] == "units":  # its own head first
        before = lines.pop(0) + "\n" + before
    if not re.search(r"^(run|minimize)\b", text, re.MULTILINE):
        after = "fix nve_of_the_test all nve\nrun 1\n"
    return before + "\n".join(lines) + "\n" + after


@pytest.mark.parametrize("page", [page for page in PAGES if any(b[1] in RUN and b[2] is None for b in blocks(page))])
def test_examples_run(page, example_folder, tmp_path):
    lmp = os.environ.get("MACEKIT_LMP")
    chosen = []
    for line, language, reason, text in blocks(page):
        if language not in RUN or reason:
            continue
        if re.search(r"\blmp\b", text) or language == "lammps":
            if not lmp:
                pytest.skip("MACEKIT_LMP is not set; `make test` sets it")
        if language == "lammps":
            text = f"cat > in.block <<'END_OF_BLOCK'\n{whole_input(text)}END_OF_BLOCK\nlmp -in in.block -log none\n"
        chosen.append((f"{page} line {line}", language, text))
    folder = tmp_path / "folder"
    shutil.copytree(example_folder, folder)
    (folder / "blocks.json").write_text(json.dumps(chosen))
    path = [str(folder / "bin"), *([os.path.dirname(lmp)] if lmp else []), os.environ["PATH"]]
    environment = {**os.environ, "PATH": ":".join(path), "OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                   "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none", "MPLBACKEND": "Agg"}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", DRIVER], cwd=folder, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, (done.stdout[-3000:] + done.stderr[-3000:])


# Commands and options that are named anywhere


def help_of(*words):
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        try:
            main([*words, "--help"])
        except SystemExit:
            pass
    return out.getvalue()


def options_of(verb, words):
    """The options that a verb takes, or None if it has no such verb."""
    if verb == "train":
        from macekit.training import config, upstream

        names = {*config.KEYS, *config.SYNONYMS, *upstream.ONLY, *upstream.NO_EFFECT}
        return {f"--{name}" for name in names} | {f"--{name.replace('_', '-')}" for name in names} | {"--help"}
    if verb == "screen":
        from macekit.screening.verbs import VERBS as SCREENS

        named = [word for word in words[:1] if word in SCREENS] or list(SCREENS)
        return set().union(*(re.findall(r"--[a-z][a-z-]*", help_of("screen", name)) for name in named)) | {"--help"}
    return set(re.findall(r"--[a-z][a-z_-]*", help_of(verb, *(["check"] if verb == "data" else []))))


def shell_code(text):
    """Blocks that may hold commands, and code within lines."""
    return [m["text"] for m in BLOCK.finditer(text) if m["language"] in ("sh", "")] + re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))


def commands(text):
    """[(verb, words after it)] of `macekit VERB ..` in code, up to what ends a command."""
    found = []
    for piece in shell_code(text):
        for line in re.sub(r"\\\n", " ", piece).splitlines():
            for match in re.finditer(r"(?:^|\s|-m )macekit ([a-z]+)\b([^#|;&]*)", line):
                if match[1] != "shard":  # the first line of a prepared file
                    found.append((match[1], match[2].split()))
    return found


def test_commands_and_options_exist():
    seen = 0
    for path in markdown_files():
        for verb, words in commands(path.read_text(encoding="utf-8")):
            assert verb in VERBS, f"{path.relative_to(ROOT)}: macekit has no verb {verb}"
            known = options_of(verb, words)
            for word in words:
                if re.match(r"--[a-z]", word):
                    option = word.split("=")[0].rstrip(").,:`")
                    assert option in known, f"{path.relative_to(ROOT)}: macekit {verb} has no option {option}"
                    seen += 1
    assert seen > 40


def test_scripts_targets_and_their_options_exist():
    """python FILE --option, make TARGET, [FILE] in code of any page."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in markdown_files():
        text = path.read_text(encoding="utf-8")
        for piece in shell_code(text):
            for line in re.sub(r"\\\n", " ", piece).splitlines():
                for target in re.findall(r"(?:^|`|\(|\| )make (?:-s )?([a-z]+)", line):
                    assert target in targets, f"{path.relative_to(ROOT)}: the Makefile has no target {target}"
                for script, options in re.findall(r"\b((?:benchmarks|examples|tests)/[\w/]+\.(?:py|sh))\b([^#`]*)", line):
                    assert (ROOT / script).is_file(), f"{path.relative_to(ROOT)}: there is no {script}"
                    for option in re.findall(r"(?<!\S)--[a-z][\w-]*", options):
                        assert option in (ROOT / script).read_text(encoding="utf-8"), f"{path.relative_to(ROOT)}: {script} has no option {option}"


def test_configurations_have_known_keys():
    from macekit.training import config

    for page in PAGES:
        for line, language, _, text in blocks(page):
            if language == "yaml":
                for key in yaml.safe_load(text):
                    assert key in config.KEYS, f"{page} line {line}: macekit train has no key {key}"


def test_recipes_name_what_is_there():
    """The tables of CONTRIBUTING.md: | [file](file) | `what to copy` | .. |"""
    rows = re.findall(r"^\| \[[^\]]+\]\(([^)]+)\) \| `([^`]+)` \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 40
    for path, copied in rows:
        assert copied in (ROOT / path).read_text(encoding="utf-8"), f"CONTRIBUTING.md: {path} has no {copied}"


# Links


def hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors_of(text):
    """Anchors of a markdown page as GitHub and MkDocs make them."""
    heads = re.findall(r"^#+ +(.+?) *$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", re.sub(r"[`*]", "", head)).strip().lower()) for head in heads}


def test_relative_links_resolve():
    module, seen = hooks(), 0
    for path in markdown_files():
        page = path.relative_to(ROOT).as_posix()
        for target, anchor in module.targets(page, path.read_text(encoding="utf-8")):
            if not target.startswith("docs/figures/") or target.endswith(".py"):
                assert (ROOT / target).exists(), f"{page}: the link to {target} leads nowhere"
            if anchor and target.endswith(".md"):
                assert anchor in anchors_of((ROOT / target).read_text(encoding="utf-8")), f"{page}: {target} has no heading #{anchor}"
            seen += 1
    assert seen > 50


class References(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.loaded, self.ids = [], [], set()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.update(x for x in (attributes.get("id"), attributes.get("name")) if x)
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        elif tag in ("script", "img", "iframe", "source") and attributes.get("src"):
            self.loaded.append(attributes["src"])
        elif tag == "link" and attributes.get("rel") not in ("canonical", "next", "prev") and attributes.get("href"):
            self.loaded.append(attributes["href"])


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})  # fmt: skip
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return folder


def test_the_site_is_whole(site):
    """Each link and anchor has its page and its place, each picture is there, and nothing is loaded from elsewhere."""
    pages = {}
    for path in site.rglob("*.html"):
        pages[path.relative_to(site).as_posix()] = parser = References()
        parser.feed(path.read_text(encoding="utf-8"))
    assert {"index.html", "quick-start.html", "lammps.html", "api.html", "CONTRIBUTING.html", "potentials/silicon.html"} <= set(pages)
    for page, parser in pages.items():
        for link in parser.links + parser.loaded:
            if re.match(r"(https?|mailto):", link):
                assert link not in parser.loaded, f"{page}: {link} is loaded from elsewhere"
                continue
            if page == "404.html" or link.startswith("data:"):
                continue
            target, _, anchor = link.partition("#")
            target = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(target))) if target else page
            target = "index.html" if target == "." else target
            assert (site / target).is_file(), f"{page}: {link} leads nowhere"
            if anchor and target.endswith(".html"):
                assert unquote(anchor) in pages[target].ids or anchor.startswith("__") or anchor in ("only-light", "only-dark"), f"{page}: {link} has no place"
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.search(r"(url\(|@import )['\"]?https?:", styles)


def test_the_site_has_its_figures_and_tables(site):
    markers = set(re.findall(r"<!-- figure: ([a-z0-9-]+) -->", "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)))
    assert markers == {path.stem for path in (ROOT / "docs" / "figures").glob("*.py")}
    for name in markers:
        for scheme in ("light", "dark"):
            assert "<svg" in (site / "figures" / f"{name}-{scheme}.svg").read_text(encoding="utf-8")[:2000]
    page = (site / "benchmarks.html").read_text(encoding="utf-8")
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        assert set(result) <= {"title", "conditions", "machine", "date", "command", "columns", "rows"}, path.name
        assert all(len(row) == len(result["columns"]) for row in result["rows"]), f"{path.name}: rows and columns differ in number"
        assert html.escape(result["title"], quote=False) in page and "<!-- benchmarks -->" not in page
