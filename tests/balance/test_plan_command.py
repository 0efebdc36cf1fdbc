# SPDX-License-Identifier: MIT
"""macekit plan: its table and files against the plans themselves, and a sentence for every mistake."""

import json

import ase.build
import ase.io
import ase.neighborlist
import numpy as np
import pytest

from macekit.balance import Plan, sample, sizes_of
from macekit.cli import main


@pytest.fixture
def structures(tmp_path):
    rng = np.random.default_rng(0)
    frames = []
    for k in range(120):
        atoms = ase.build.bulk("Si", "diamond", a=5.4, cubic=True) * (1, 1, 1 + k % 3)
        atoms = atoms[: rng.integers(2, len(atoms) + 1)]
        atoms.rattle(0.1, seed=k)
        frames.append(atoms)
    frames.append(ase.build.molecule("H2O"))
    ase.io.write(tmp_path / "in.extxyz", frames)
    return tmp_path / "in.extxyz", frames


def test_sizes_of_structures_are_those_of_ase(structures):
    path, frames = structures
    sizes = sizes_of(path, 4.0)
    assert sizes.num_atoms.tolist() == [len(a) for a in frames]
    assert sizes.num_edges.tolist() == [len(ase.neighborlist.neighbor_list("i", a, 4.0)) for a in frames]


def test_a_prepared_dataset_has_the_sizes_of_its_structures(structures, tmp_path, capsys):
    path, _ = structures
    assert main(["prepare", str(path), "-o", str(tmp_path / "prepared"), "--r-max", "4", "--unlabelled"]) == 0
    expected, prepared = sizes_of(path, 4.0), sizes_of(tmp_path / "prepared")
    assert prepared.num_atoms.tolist() == expected.num_atoms.tolist() and prepared.num_edges.tolist() == expected.num_edges.tolist()
    assert main(["plan", str(tmp_path / "prepared"), "--max-atoms", "96", "--ranks", "2"]) == 0
    assert "balance" in capsys.readouterr().out


def test_the_report_is_that_of_the_plan(structures, tmp_path, capsys):
    path, frames = structures
    out, picture = tmp_path / "plan.json", tmp_path / "plan.png"
    assert main(["plan", str(path), "--r-max", "4", "--max-atoms", "96", "--ranks", "2", "--forecast", "1,2,4", "--json", str(out), "--plot", str(picture)]) == 0
    text, report = capsys.readouterr().out, json.loads(out.read_text())
    assert "balance" in text and "macekit" in text
    assert picture.read_bytes()[:4] == b"\x89PNG"
    rows = {r["sampler"]: r for r in report["samplers"]}
    assert set(rows) == {"fixed", "fairchem", "max-atoms", "sorted", "paper", "cost", "balanced"}
    for name in ("cost", "balanced", "paper"):
        assert (rows[name]["dropped"], rows[name]["repeated"]) == (0, 0)
        assert rows[name]["largest_atoms"] <= 96
    plan = Plan(sizes_of(path, 4.0), virtual_bins=2, max_atoms=96)
    assert rows["balanced"]["plan"] == plan.hash and rows["balanced"]["steps"] == plan.num_steps()
    assert [f["num_ranks"] for f in report["forecasts"][:3]] == [1, 2, 4]
    alone = next(f for f in report["forecasts"] if f["sampler"] == "balanced" and f["num_ranks"] == 1)
    assert alone["ideal"] == pytest.approx(sum(map(len, frames)) / 20000)  # the default speed


@pytest.mark.parametrize("form", ["json", "npz"])
def test_tables_of_sizes(form, tmp_path, capsys):
    sizes = sample("spice", 500, 1)
    path = tmp_path / f"sizes.{form}"
    if form == "json":
        path.write_text(json.dumps({"num_atoms": sizes.num_atoms.tolist(), "num_edges": sizes.num_edges.tolist()}))
    else:
        np.savez(path, num_atoms=sizes.num_atoms, num_edges=sizes.num_edges)
    assert main(["plan", str(path), "--step-graphs", "50", "--ranks", "2", "--json", str(tmp_path / "out.json")]) == 0
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["structures"], report["atoms"]) == (500, sizes.num_atoms.sum())
    assert {r["sampler"]: r["steps"] for r in report["samplers"]}["balanced"] == 10


def test_distributions_have_the_published_means():
    for name, mean in (("mptrj", 31.2), ("omat24", 18.7), ("spice", 40)):
        assert sample(name, 200_000, 0).num_atoms.mean() == pytest.approx(mean, rel=0.05)
    mix = sample("paper-mix", 265_082, 0)
    assert mix.num_atoms.mean() == pytest.approx(113, rel=0.02) and mix.num_atoms.max() == 768
    assert (sample("mptrj", 100, 3).num_edges == sample("mptrj", 100, 3).num_edges).all()


def test_measured_times_and_memory_set_limits(tmp_path, capsys):
    rng = np.random.default_rng(1)
    bins = [{"graphs": 4, "atoms": int(n), "edges": int(n * k), "seconds": 1e-3 + 1e-5 * n + 1e-7 * n * k, "bytes": int(2**28 + 1e5 * n + 2e3 * n * k)} for n, k in zip(rng.integers(50, 2000, 30), rng.uniform(20, 90, 30))]
    (tmp_path / "a.json").write_text(json.dumps({"code": "macekit", "bins": bins}))
    (tmp_path / "b.json").write_text(json.dumps({"code": "other", "bins": [{**b, "seconds": 3 * b["seconds"]} for b in bins]}))
    out = tmp_path / "out.json"
    arguments = ["plan", "mptrj", "--count", "5000", "--ranks", "4", "--memory", "1", "--times", str(tmp_path / "a.json"), "--times", str(tmp_path / "b.json"), "--json", str(out)]
    assert main([*arguments, "--jitter", "0", "--samplers", "fixed,balanced"]) == 0
    report = json.loads(out.read_text())
    balanced = next(r for r in report["samplers"] if r["sampler"] == "balanced")
    assert balanced["memory_bytes"] < 2**30
    ours, theirs = [f["ideal"] for f in report["forecasts"] if f["sampler"] == "balanced"]
    assert theirs == pytest.approx(3 * ours, rel=1e-6)


def test_times_of_a_training_log(tmp_path, capsys):
    cost = {"start": 1e-3, "atom": 1e-5, "edge": 2e-7, "graph": 0.0, "sigma": 0.0}
    records = [{"kind": "start"}, {"kind": "balance", "epoch": 0, "cost": {**cost, "atom": 1.0}}, {"kind": "balance", "epoch": 1, "cost": cost}, {"kind": "balance", "epoch": 2, "cost": None}]
    log, out = tmp_path / "w.log.jsonl", tmp_path / "out.json"
    log.write_text("\n".join(map(json.dumps, records)) + '\n{"kind": "st')
    arguments = ["plan", "mptrj", "--count", "500", "--ranks", "1", "--max-atoms", "1000", "--jitter", "0", "--samplers", "balanced", "--times", str(log)]
    assert main([*arguments, "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    forecast, row = report["forecasts"][0], report["samplers"][0]
    assert forecast["times"] == "macekit" and forecast["seconds"] == pytest.approx(1e-3 * row["num_bins"] + 1e-5 * report["atoms"] + 2e-7 * report["edges"], rel=0.01)
    log.write_text(json.dumps(records[3]))
    assert main(arguments) == 2 and "no epoch in it has measured the cost of bins" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["nothing.extxyz", "--max-atoms", "9"], 3, "no such file"),
        (["mptrj", "--count", "100", "--max-atoms", "20", "--samplers", "balanced"], 2, "larger than a bin"),
        (["mptrj", "--count", "100", "--step-graphs", "9", "--ranks", "0"], 2, "--ranks is 0"),
        (["mptrj", "--count", "0"], 2, "--count is 0"),
        (["mptrj", "--r-max", "5"], 2, "no meaning"),
        (["mptrj", "--samplers", "best"], 2, "unknown sampler best"),
        (["mptrj", "--mode", "best"], 2, "--mode best"),
        (["mptrj", "--forecast", "a"], 2, "expected numbers of ranks"),
        (["mptrj", "--memory", "1"], 2, "needs --times"),
        (["mptrj", "--nodes", "3"], 2, "nodes must divide"),
        (["mptrj", "--bandwidth", "0"], 2, "--bandwidth"),
        (["mptrj", "--plot", "a.bmp"], 2, "must end in"),
        (["mptrj", "--json", "nowhere/a.json"], 2, "does not exist"),
        (["mptrj", "--times", "broken.json"], 3, "is no JSON"),
        (["mptrj", "--times", "empty.json"], 2, "lacks 'bins'"),
        (["broken.json", "--max-atoms", "9"], 3, "cannot be read"),
        (["empty.json", "--max-atoms", "9"], 2, "has no num_atoms"),
        (["empty.json", "--max-atoms", "9", "--r-max", "4"], 2, "counted already"),
        (["in.extxyz", "--max-atoms", "9"], 2, "--r-max"),
        (["in.extxyz", "--r-max", "4"], 2, "how large is a bin"),
        (["in.extxyz", "--r-max", "-4", "--max-atoms", "9"], 2, "r_max is -4"),
    ],
)
def test_mistakes_get_a_sentence(arguments, code, words, structures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "empty.json").write_text("{}")
    assert main(["plan", *arguments]) == code
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1
