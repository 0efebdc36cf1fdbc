# SPDX-License-Identifier: MIT
"""macekit data check: counts and findings against numbers worked out by hand or with numpy."""

import json
import os
import xml.dom.minidom

import ase
import ase.build
import ase.io
import ase.neighborlist
import numpy as np
import pytest
from ase.calculators.emt import EMT
from data_support import far_atom, structures, write

from macekit.cli import main


def check(capsys, *words):
    """(report, exit code, stderr)"""
    code = main(["data", "check", "--json", "-j", "1", *map(str, words)])
    out, err = capsys.readouterr()
    return json.loads(out) if out else None, code, err


def says(report, *words):
    return any(all(word in sentence for word in words) for sentence in report["findings"])


def copper(num=24, seed=0):
    """Copper and gold with EMT's energies, forces and stresses at many volumes; a second opinion on the sign of stress."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(num):
        atoms = ase.build.bulk("Cu", cubic=True) if k % 2 else ase.build.bulk("Au", cubic=True)
        atoms.set_cell(atoms.cell * rng.uniform(0.94, 1.08), scale_atoms=True)
        atoms.rattle(0.05, seed=k)
        atoms.calc = EMT()
        atoms.info.update(REF_energy=atoms.get_potential_energy(), REF_stress=atoms.get_stress())
        atoms.arrays["REF_forces"] = atoms.get_forces()
        atoms.calc = None
        frames.append(atoms)
    for element in ("Cu", "Au"):
        atom = ase.Atoms(element, info={"config_type": "IsolatedAtom"})
        atom.calc = EMT()
        atom.info["REF_energy"] = atom.get_potential_energy()
        atom.calc = None
        frames.append(atom)
    return frames


def test_numbers_of_a_report(tmp_path, capsys):
    frames = structures(50)
    report, code, err = check(capsys, write(tmp_path / "a.extxyz", frames), "--r-max", 4)
    assert code == 0 and not err
    forces = np.concatenate([a.arrays["REF_forces"] for a in frames if "REF_forces" in a.arrays])
    assert report["num_structures"] == 50 and report["num_atoms"] == sum(map(len, frames))
    assert report["num_edges"] == sum(len(ase.neighborlist.neighbor_list("i", a, 4.0)) for a in frames)
    assert report["labels"] == {"energy": sum("REF_energy" in a.info for a in frames), "forces": sum("REF_forces" in a.arrays for a in frames),
                                "stress": sum("REF_stress" in a.info for a in frames), "virials": sum("REF_virials" in a.info for a in frames)}
    assert report["forces_rms"] == pytest.approx(np.sqrt((forces ** 2).mean())) and report["extremes"]["force"]["value"] == pytest.approx(np.linalg.norm(forces, axis=1).max())
    assert {e: (x["structures"], x["atoms"]) for e, x in report["elements"].items()} == {
        e: (sum(e in a.symbols for a in frames), sum(list(a.symbols).count(e) for a in frames)) for e in ("H", "C", "O", "Si", "U")}
    assert sum(report["sizes"].values()) == 50 and report["sizes"][str(len(frames[0]))] == sum(len(a) == len(frames[0]) for a in frames)
    kinds = [a.info.get("config_type", "Default") for a in frames]
    assert {g["config_type"]: g["structures"] for g in report["groups"]} == {k: kinds.count(k) for k in kinds}
    assert report["not_stored"] == {"magmoms_dft": 50}
    assert report["periodic"] == {"in three directions": sum(a.pbc.all() for a in frames), "in none": sum(not a.pbc.any() for a in frames), "in one or two": sum(0 < a.pbc.sum() < 3 for a in frames)}


def test_good_data_have_no_findings(tmp_path, capsys):
    report, code, _ = check(capsys, write(tmp_path / "a.extxyz", copper()))
    assert code == 0 and report["findings"] == []
    assert report["stress_sign"]["correlation"] > 0.9 and report["E0"]["Default"]["elements"]["Cu"]["from"] == "isolated atoms"
    assert report["isolated_without_forces"] == 2


def test_least_squares_are_those_of_numpy(tmp_path, capsys):
    frames = [a for a in structures(60, seed=3) if "REF_energy" in a.info]
    report, *_ = check(capsys, write(tmp_path / "a.extxyz", frames))
    elements = sorted({z for a in frames for z in a.numbers})
    rows = np.array([[np.sum(a.numbers == z) for z in elements] for a in frames]) / np.array([[len(a)] for a in frames])
    energies = np.array([a.info["REF_energy"] / len(a) for a in frames])
    solution, *_ = np.linalg.lstsq(rows, energies, rcond=None)
    table = report["E0"]["Default"]
    assert [x["energy"] for x in table["elements"].values()] == pytest.approx(solution.tolist(), rel=1e-8)
    residual = energies - rows @ solution
    assert table["rms_residual"] == pytest.approx(np.sqrt((residual ** 2).mean()), rel=1e-6)
    assert report["energy_per_atom"]["max"] == pytest.approx(residual.max(), rel=1e-6)
    assert table["determined"]
    water = [ase.build.molecule("H2O", vacuum=3) for _ in range(4)]
    for k, atoms in enumerate(water):
        atoms.rattle(0.02, seed=k)
        atoms.info["REF_energy"] = -14.0 + 0.01 * k
    report, *_ = check(capsys, write(tmp_path / "w.extxyz", water))
    assert says(report, "do not determine the energies of isolated atoms")


def changed(change, num=24):
    frames = copper(num)
    change(frames)
    return frames


def flip(frames):
    for atoms in frames[:-2]:
        atoms.info["REF_stress"] = -atoms.info["REF_stress"]


def gigapascal(frames):
    for atoms in frames[:-2]:
        atoms.info["REF_stress"] = atoms.info["REF_stress"] * 160.2


FINDINGS = {
    "other sign of stress": (flip, ["positive under compression"]),
    "stress in GPa": (gigapascal, ["largest stress", "GPa or kbar"]),
    "virials of the other sign": (lambda f: [a.info.update(REF_virials=a.get_volume() * np.array([[s[0], s[5], s[4]], [s[5], s[1], s[3]], [s[4], s[3], s[2]]])) for a in f[:-2] for s in [a.info["REF_stress"]]],
                                  ["24 frames have virials that are not -volume times"]),
    "duplicate": (lambda f: f.append(f[3].copy()), ["1 frames repeat", "a.extxyz frame 26", "a.extxyz frame 3"]),
    "duplicate with another energy": (lambda f: (f.append(f[3].copy()), f[-1].info.update(REF_energy=7.0)), ["1 of them with another energy"]),
    "isolated atom elsewhere": (lambda f: f.__setitem__(5, far_atom()), ["1 atoms in 1 frames have no neighbour", "frame 5"]),
    "large force": (lambda f: f[4].arrays["REF_forces"].__setitem__((0, 0), 400.0), ["largest force is 400", "frame 4"]),
    "net force": (lambda f: f[6].arrays["REF_forces"].__iadd__(0.5), ["do not add up to zero", "frame 6"]),
    "missing label": (lambda f: f[2].info.pop("REF_energy"), ["1 of 26 frames lack the energy REF_energy"]),
    "missing stress": (lambda f: f[2].info.pop("REF_stress"), ["1 of 24 periodic frames lack the stress"]),
    "no label at all": (lambda f: (f[2].info.clear(), f[2].arrays.pop("REF_forces")), ["1 frames have none of the labels"]),
    "zeros for forces": (lambda f: [a.arrays["REF_forces"].fill(0) for a in f[:12]], ["12 frames of several atoms have forces that are all exactly zero"]),
    "isolated atoms of other theory": (lambda f: [a.info.update(REF_energy=-1000.0) for a in f[-2:]], ["eV/atom from those of the isolated atoms"]),
    "contradicting isolated atoms": (lambda f: (f.append(f[-1].copy()), f[-1].info.update(REF_energy=9.0), f[-1].set_cell([3, 3, 3])), ["2 IsolatedAtom frames of Au differ"]),
    "energy far off": (lambda f: f[9].info.update(REF_energy=f[9].info["REF_energy"] + 4000.0), ["energy of a.extxyz frame 9 lies"]),
    "stress of a molecule": (lambda f: f[7].set_pbc(False), ["1 frames have a stress or virials but no periodic direction"]),
    "overlap": (lambda f: f[8].positions.__setitem__(1, f[8].positions[0] + [0.1, 0, 0]), ["0.1 A apart", "frame 8"]),
}


@pytest.mark.parametrize("what", FINDINGS)
def test_what_looks_wrong_is_said(tmp_path, capsys, what):
    change, words = FINDINGS[what]
    path = tmp_path / "a.extxyz"
    ase.io.write(path, changed(change), format="extxyz")
    report, code, _ = check(capsys, path)
    assert code == 0 and says(report, *words), report["findings"]


def test_a_folder_and_its_files_give_the_same_report(tmp_path, capsys):
    path = write(tmp_path / "a.extxyz", structures(60))
    assert main(["prepare", path, "-o", str(tmp_path / "data"), "--r-max", "5", "-j", "1", "--json", "--shard-mb", "0.003"]) == 0
    prepared = json.loads(capsys.readouterr().out)
    folder, *_ = check(capsys, tmp_path / "data")
    files, *_ = check(capsys, path)
    assert prepared == folder and prepared["num_shards"] > 5
    for key in ("num_shards", "num_bytes", "folder"):
        folder.pop(key), files.pop(key)
    differing = [key for key in folder if folder[key] != files[key]]
    assert differing == [] or all(np.allclose(folder[k], files[k], rtol=1e-12) for k in differing if isinstance(folder[k], float)), differing


def test_damage_is_said_before_any_number(tmp_path, capsys):
    path = write(tmp_path / "a.extxyz", structures(20))
    main(["prepare", path, "-o", str(tmp_path / "data"), "--r-max", "5", "-j", "1"])
    shard = tmp_path / "data/shard-000000-000.h5"
    from macekit.data import open_shards

    entry = open_shards(tmp_path / "data").shards[0].header["arrays"]["forces"]
    content = bytearray(shard.read_bytes())
    content[entry["offset"] + 5] ^= 1
    shard.write_bytes(content)
    capsys.readouterr()
    report, code, err = check(capsys, tmp_path / "data")
    assert report is None and code == 3 and "shard-000000-000.h5: the array forces is damaged" in err and err.count("\n") == 1


def test_text_and_html(tmp_path, capsys):
    path = write(tmp_path / "a.extxyz", copper() + structures(10) + copper()[:1])
    assert main(["data", "check", path, "-j", "1", "--html", str(tmp_path / "r.html")]) == 0
    text = capsys.readouterr().out
    assert "structures         37" in text and "findings:" in text and "IsolatedAtom" in text
    page = open(tmp_path / "r.html", encoding="utf-8").read()
    assert page.count("<svg") == 6 and "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace("http://creativecommons.org", "")
    assert "1 frames repeat an earlier structure" in page and "<script" not in page
    for svg in page.split("<svg")[1:]:
        xml.dom.minidom.parseString("<svg" + svg[:svg.index("</svg>")] + "</svg>")
    assert main(["data", "check", os.path.join(tmp_path, "none.xyz")]) == 3
    assert main(["data", "inspect"]) == 2
