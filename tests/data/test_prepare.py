# SPDX-License-Identifier: MIT
"""macekit prepare: every kind of file, continued runs, bad frames, units, heads, splits, and the trainer on a prepared dataset."""

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import ase.db
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from data_support import structures, write

from macekit.cli import main
from macekit.data import open_shards


def run(capsys, *words):
    """(exit code, stdout, stderr) of the command."""
    code = main([str(word) for word in words])
    return (code, *capsys.readouterr())


def make(capsys, folder, *words, r_max=4):
    code, out, err = run(capsys, "prepare", "-o", folder, "--r-max", r_max, "-j", 1, *words)
    assert code == 0, err
    return open_shards(folder)


def positions(dataset):
    return [atoms.positions.tolist() for atoms in dataset]


def test_many_files_in_order_and_in_processes(tmp_path, capsys):
    frames = structures(60)
    for k in range(6):
        write(tmp_path / f"part{k}.extxyz", frames[10 * k:10 * k + 10])
    code, _, err = run(capsys, "prepare", tmp_path / "part*.extxyz", "-o", tmp_path / "two", "--r-max", 4, "-j", 2, "--shard-mb", 0.002)
    assert code == 0, err
    one = make(capsys, tmp_path / "one", tmp_path / "part*.extxyz")
    two = open_shards(tmp_path / "two")
    assert len(two.shards) > 5 and positions(one) == positions(two) == [a.positions.tolist() for a in frames]
    assert [one.source(i) for i in (0, 10, 59)] == ["part0.extxyz frame 0", "part1.extxyz frame 0", "part5.extxyz frame 9"]
    assert np.array_equal(one.num_edges, two.num_edges)


def test_other_kinds_of_files(tmp_path, capsys):
    frames = structures(9)
    for atoms in frames:
        atoms.info = {k: v for k, v in atoms.info.items() if k in ("REF_energy",)}
        n = len(atoms)
        atoms.calc = SinglePointCalculator(atoms, energy=-1.5 * n, forces=np.full((n, 3), 0.25))
    ase.io.write(tmp_path / "a.traj", frames)
    with ase.db.connect(tmp_path / "a.db") as database:
        for atoms in frames:
            database.write(atoms, key_value_pairs={"dft": 7.0}, data={"dft_forces": atoms.positions * 2})
    with gzip.open(tmp_path / "a.extxyz.gz", "wt") as out:
        ase.io.write(out, frames, format="extxyz")
    ase.io.write(tmp_path / "POSCAR", frames[1])
    keys = ("--energy-key", "energy", "--forces-key", "forces")
    for name in ("a.traj", "a.db", "a.extxyz.gz"):
        dataset = make(capsys, tmp_path / f"{name}-data", tmp_path / name, *keys)
        assert len(dataset) == 9
        for atoms, original in zip(dataset, frames):
            assert np.allclose(atoms.positions, original.positions, atol=1e-8) and atoms.info["energy"] == -1.5 * len(original) and (atoms.arrays["forces"] == 0.25).all()
    dataset = make(capsys, tmp_path / "pairs", tmp_path / "a.db", "--energy-key", "dft", "--forces-key", "dft_forces")
    assert all(a.info["dft"] == 7.0 and np.array_equal(a.arrays["dft_forces"], 2 * b.positions) for a, b in zip(dataset, frames))
    dataset = make(capsys, tmp_path / "mixed", tmp_path / "POSCAR", tmp_path / "a.traj", *keys)
    assert len(dataset) == 10 and dataset.source(0) == "POSCAR frame 0" and dataset.source(9) == "a.traj frame 8"


def test_files_of_mace_torch(tmp_path, capsys):
    """Written by mace-torch's own code, with its repetition of the last structure when the number is odd."""
    python = os.environ.get("MACEKIT_PEER_PYTHON")
    if not python:
        pytest.skip("mace-torch's environment is not here")
    frames = [atoms for atoms in structures(30) if "REF_energy" in atoms.info and "REF_forces" in atoms.arrays][:9]
    write(tmp_path / "a.extxyz", frames)
    script = """
import sys, h5py, ase.io, numpy as np
from mace.data import KeySpecification, config_from_atoms
from mace.data.utils import save_configurations_as_HDF5
keys = KeySpecification(info_keys={"energy": "REF_energy", "stress": "REF_stress", "virials": "REF_virials", "total_charge": "total_charge"}, arrays_keys={"forces": "REF_forces"})
configs = [config_from_atoms(a, key_specification=keys) for a in ase.io.read("a.extxyz", ":")]
configs.append(configs[-1])
for k, part in enumerate(np.array_split(np.array(configs, dtype=object), 2)):
    with h5py.File(f"train_{k}.h5", "w") as f:
        f.attrs["drop_last"] = True
        save_configurations_as_HDF5(part, k, f)
"""
    subprocess.run([python, "-c", script], cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": "", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}, capture_output=True)
    os.makedirs(tmp_path / "train")
    for k in range(2):
        shutil.move(tmp_path / f"train_{k}.h5", tmp_path / "train")
    dataset = make(capsys, tmp_path / "data", tmp_path / "train")
    direct = make(capsys, tmp_path / "direct", tmp_path / "a.extxyz")
    assert len(dataset) == 9 and dataset.source(8) == "train_1.h5 frame 3"
    for i in range(9):
        a, b = dataset.frame(i), direct.frame(i)
        for key in ("energy", "forces", "stress", "virials", "positions", "cell", "pbc", "inputs", "config_type"):
            assert (a[key] is None) == (b[key] is None) and (a[key] is None or np.array_equal(a[key], b[key])), key
        for label, mine, theirs in zip(("frame", "energy", "forces", "stress", "virials"), a["weights"], b["weights"]):
            assert mine == theirs or b[label] is None


    from macekit.training import config as configuration
    from macekit.training import data

    config = configuration.load(None, [("name", "x"), ("train_file", str(tmp_path / "train"))])
    for mine, theirs in zip(data.read(str(tmp_path / "train"), config, []), data.read(str(tmp_path / "a.extxyz"), config, []), strict=True):
        assert mine["energy"] == theirs["energy"] and np.array_equal(mine["forces"], theirs["forces"]) and np.array_equal(mine["positions"], theirs["positions"])


def test_no_torch_is_needed(tmp_path):
    write(tmp_path / "a.extxyz", structures(5))
    script = "import sys; sys.modules['torch'] = None; from macekit.cli import main; sys.exit(main(['prepare', 'a.extxyz', '-o', 'data', '--r-max', '4', '-j', '1']) or main(['data', 'check', 'data']))"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)


def test_prepared_datasets_are_input_too(tmp_path, capsys):
    write(tmp_path / "a.extxyz", structures())
    one = make(capsys, tmp_path / "one", tmp_path / "a.extxyz")
    two = make(capsys, tmp_path / "two", tmp_path / "one", r_max=5.5)
    direct = make(capsys, tmp_path / "direct", tmp_path / "a.extxyz", r_max=5.5)
    assert np.array_equal(two.num_edges, direct.num_edges) and not np.array_equal(two.num_edges, one.num_edges)
    for i in range(len(one)):
        assert two.source(i) == one.source(i)
        a, b = two[i], one[i]
        assert set(a.info) == set(b.info) and set(a.arrays) == set(b.arrays)
        assert all(np.array_equal(a.info[k], b.info[k]) for k in a.info) and all(np.array_equal(a.arrays[k], b.arrays[k]) for k in a.arrays)


def killed(command, folder, after):
    """Starts the command, kills it once `after` shards are there."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    while process.poll() is None:
        if os.path.isdir(folder) and sum(name.endswith(".h5") for name in os.listdir(folder)) >= after:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.01)
    process.communicate()
    return process.returncode


def test_a_killed_run_is_continued(tmp_path, capsys):
    frames = structures(400)
    write(tmp_path / "a.extxyz", frames[:300])
    ase.io.write(tmp_path / "b.extxyz.gz", frames[300:], format="extxyz")  # a file that cannot be cut beforehand
    words = [str(tmp_path / "a.extxyz"), str(tmp_path / "b.extxyz.gz"), "--r-max", "4", "--shard-mb", "0.005"]
    folder = tmp_path / "data"
    command = [sys.executable, "-m", "macekit", "prepare", *words, "-o", str(folder), "-j", "2"]
    codes = [killed(command, folder, after) for after in (2, 6)]
    assert codes == [-signal.SIGKILL] * 2
    code, _, err = run(capsys, "data", "check", folder)
    assert code == 3 and "is not finished" in err
    stamps = {name: os.stat(folder / name).st_mtime_ns for name in os.listdir(folder) if name.endswith(".h5")}
    assert len(stamps) >= 6
    finished = make(capsys, folder, *words)
    whole = make(capsys, tmp_path / "whole", *words)
    assert {name: os.stat(folder / name).st_mtime_ns for name in stamps} == stamps  # what was there was kept
    assert positions(finished) == positions(whole) and len(finished) == 400
    assert [finished.source(i) for i in range(400)] == [whole.source(i) for i in range(400)]
    assert not [name for name in os.listdir(folder) if name.endswith(".tmp")]


def test_an_interrupted_stream_goes_on_where_it_stopped(tmp_path, capsys):
    ase.io.write(tmp_path / "b.extxyz.gz", structures(100), format="extxyz")
    words = (tmp_path / "b.extxyz.gz", "--shard-mb", 0.001)
    whole = make(capsys, tmp_path / "data", *words)
    expected, parts = positions(whole), sorted(tmp_path.glob("data/*.h5"))
    assert len(parts) > 2
    for path in parts[len(parts) // 2:]:
        path.unlink()
    (tmp_path / "data/dataset.json").unlink()
    assert positions(make(capsys, tmp_path / "data", *words)) == expected


def test_another_run_in_the_same_folder_is_refused(tmp_path, capsys):
    write(tmp_path / "a.extxyz", structures())
    make(capsys, tmp_path / "data", tmp_path / "a.extxyz")
    before = (tmp_path / "data/dataset.json").stat().st_mtime_ns
    make(capsys, tmp_path / "data", tmp_path / "a.extxyz")
    assert (tmp_path / "data/dataset.json").stat().st_mtime_ns == before
    code, _, err = run(capsys, "prepare", tmp_path / "a.extxyz", "-o", tmp_path / "data", "--r-max", 5, "-j", 1)
    assert code == 2 and "begun with r_max 4.0, not 5.0" in err
    write(tmp_path / "a.extxyz", structures(41))
    code, _, err = run(capsys, "prepare", tmp_path / "a.extxyz", "-o", tmp_path / "data", "--r-max", 4, "-j", 1)
    assert code == 2 and "has changed since" in err and "--fresh" in err
    assert len(make(capsys, tmp_path / "data", tmp_path / "a.extxyz", "--fresh")) == 41
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("precious")
    code, _, err = run(capsys, "prepare", tmp_path / "a.extxyz", "-o", tmp_path / "other", "--r-max", 4, "--fresh", "-j", 1)
    assert code == 2 and "holds other files" in err and (tmp_path / "other/thesis.tex").read_text() == "precious"


def spoil(text, frame, change):
    """Changes the lines of one frame of an extxyz text."""
    lines, at = text.splitlines(), 0
    for _ in range(frame):
        at += int(lines[at]) + 2
    end = at + int(lines[at]) + 2
    return "\n".join(lines[:at] + change(lines[at:end]) + lines[end:]) + "\n"


BAD = {
    "nan force": (lambda t: [re.sub(r"\S+$", "nan", line) if k == 2 else line for k, line in enumerate(t)], "REF_forces of atom 0 is NaN"),
    "nan energy": (lambda t: [t[0], re.sub(r"REF_energy=\S+", "REF_energy=nan", t[1]), *t[2:]], "REF_energy is nan"),
    "coinciding atoms": (lambda t: [t[0], t[1], t[2], t[2], *t[4:]], "atoms 0 and 1"),
    "word": (lambda t: [t[0], t[1], t[2].replace(t[2].split()[1], "abc"), *t[3:]], "cannot be read"),
    "short line": (lambda t: [*t[:2], "H 0 0", *t[3:]], "cannot be read"),
    "no element": (lambda t: [*t[:2], "Qq" + t[2][len(t[2].split()[0]):], *t[3:]], "cannot be read"),
    "negative weight": (lambda t: [t[0], t[1] + " config_weight=-1", *t[2:]], "config_weight is -1"),
    "wordy weight": (lambda t: [t[0], t[1] + " config_weight=heavy", *t[2:]], "heavy"),
    "units": (lambda t: [t[0], t[1] + ' energy_unit="kcal/mol"', *t[2:]], "its energy_unit is kcal/mol"),
    "no atoms": (lambda t: ["0", 'Properties=species:S:1:pos:R:3 pbc="F F F"'], "has no atoms"),
}


@pytest.fixture
def crystals(tmp_path):
    frames = [a for a in structures(60) if "REF_forces" in a.arrays and "REF_energy" in a.info and len(a) > 3][:12]
    for atoms in frames:
        del atoms.arrays["magmoms_dft"]
    return write(tmp_path / "a.extxyz", frames)


@pytest.mark.parametrize("what", BAD)
def test_bad_frames_are_named_or_dropped(tmp_path, capsys, crystals, what):
    change, words = BAD[what]
    text = open(crystals).read()
    open(crystals, "w").write(spoil(text, 7, change))
    code, _, err = run(capsys, "prepare", crystals, "-o", tmp_path / "data", "--r-max", 4, "-j", 1)
    assert code == 2 and "a.extxyz frame 7: " in err and words in err and "--skip-bad-frames" in err and err.count("\n") == 1
    assert not (tmp_path / "data/dataset.json").exists()
    code, out, err = run(capsys, "prepare", crystals, "-o", tmp_path / "data", "--r-max", 4, "-j", 1, "--skip-bad-frames")
    assert code == 0 and "dropped: a.extxyz frame 7" in out
    dataset = open_shards(tmp_path / "data")
    assert [dataset.source(i) for i in range(len(dataset))] == [f"a.extxyz frame {k}" for k in range(12) if k != 7]
    assert [s["frame"] for s in dataset.header["skipped"]] == [7]
    code, _, err = run(capsys, "data", "check", crystals, "-j", 1)
    assert code == 2 and "a.extxyz frame 7" in err


@pytest.mark.parametrize("content, words, code", [
    ("", "empty", 3), ("hello\n", "frame 0: expected a number of atoms, got 'hello'", 3), ("3\n\nH 0 0 0\n", "ends after 1 of 3 atoms", 2),
    ("1\nc\nH 0 0 0\n2\nc\nH 0 0 0\n1\nc\nH 0 0 0\n", "frame 2: expected a number of atoms, got 'c'; perhaps the frame before", 3), ("1\n\nH 0 0 0\n\n1\n\nH 0 0 0\n", "empty line", 3),
])
def test_broken_files_are_named(tmp_path, capsys, content, words, code):
    (tmp_path / "a.xyz").write_text(content)
    got, _, err = run(capsys, "prepare", tmp_path / "a.xyz", "-o", tmp_path / "data", "--r-max", 4, "-j", 1)
    assert (got, err.count("\n")) == (code, 1) and words in err and "a.xyz" in err


def test_wrong_keys_are_noticed(tmp_path, capsys):
    write(tmp_path / "a.extxyz", structures(12))
    wrong = ("--energy-key", "dft_energy", "--forces-key", "dft_forces")
    code, _, err = run(capsys, "prepare", tmp_path / "a.extxyz", "-o", tmp_path / "data", "--r-max", 4, "-j", 1, *wrong)
    assert code == 2 and "no frame has the energy dft_energy or the forces dft_forces. Perhaps --energy-key REF_energy --forces-key REF_forces?" in err
    assert make(capsys, tmp_path / "data", tmp_path / "a.extxyz").column("has_energy").any()  # no --fresh is needed
    assert len(make(capsys, tmp_path / "bare", tmp_path / "a.extxyz", "--unlabelled", *wrong)) == 12
    code, out, _ = run(capsys, "data", "check", tmp_path / "a.extxyz", "-j", 1, *wrong, "--stress-key", "sigma")
    assert code == 0 and "--energy-key REF_energy would read it" in out and "--stress-key REF_stress would read it" in out


def test_mistakes_in_the_command(tmp_path, capsys):
    write(tmp_path / "a.extxyz", structures(4))
    base = ["prepare", tmp_path / "a.extxyz", "-o", tmp_path / "data", "-j", 1]
    for words, said in ((["--r-max", -1], "must be positive"), (["--r-max", 4, "--energy-unit", "furlong"], "--energy-unit furlong is unknown"),
                        (["--r-max", 4, "--valid-fraction", 2], "between 0 and 1"), (["--r-max", 4, "--split-files"], "needs --valid-fraction"),
                        ([], "--r-max"), (["--r-max", 4, "--head", "a", "--head", "b"], "two heads without files"), (["--r-max", 4, "--head", "x", tmp_path / "a.extxyz"], "given 2 times")):
        code, _, err = run(capsys, *base, *words)
        assert code == 2 and said in err and err.count("\n") == 1
    code, _, err = run(capsys, "prepare", tmp_path / "none.xyz", "-o", tmp_path / "data", "--r-max", 4)
    assert code == 3 and "none.xyz: no such file" in err


def test_units_are_converted_by_declared_factors(tmp_path, capsys):
    from ase import units

    frames = [a for a in structures(40) if "REF_energy" in a.info]
    write(tmp_path / "a.extxyz", frames)
    dataset = make(capsys, tmp_path / "data", tmp_path / "a.extxyz", "--energy-unit", "Hartree", "--length-unit", "Bohr", "--stress-unit=-0.5")
    for atoms, original in zip(dataset, frames):
        assert np.allclose(atoms.positions, original.positions * units.Bohr, rtol=1e-15) and np.allclose(atoms.cell, original.cell * units.Bohr, rtol=1e-15)
        assert atoms.info["REF_energy"] == pytest.approx(original.info["REF_energy"] * units.Hartree, rel=1e-15)
        if "REF_forces" in original.arrays:
            assert np.allclose(atoms.arrays["REF_forces"], original.arrays["REF_forces"] * (units.Hartree / units.Bohr), rtol=1e-15)
        if "REF_stress" in atoms.info:
            assert atoms.info["REF_stress"][0, 0] == -0.5 * original.info["REF_stress"][0]
    assert dataset.header["factors"] == {"energy": units.Hartree, "length": units.Bohr, "stress": -0.5}


def test_heads_of_file_groups(tmp_path, capsys):
    frames = structures(30)
    for k in range(3):
        write(tmp_path / f"{k}.extxyz", frames[10 * k:10 * k + 10])
    dataset = make(capsys, tmp_path / "data", "--head", "pbe", tmp_path / "0.extxyz", tmp_path / "1.extxyz", "--head", "scan", tmp_path / "2.extxyz")
    assert dataset.heads == ["pbe", "scan"] and [a.info["head"] for a in dataset] == ["pbe"] * 20 + ["scan"] * 10
    dataset = make(capsys, tmp_path / "one", tmp_path / "0.extxyz", "--head", "pbe", "--config-type", "water")
    assert dataset.heads == ["pbe"] and {a.info["config_type"] for a in dataset} == {a.info.get("config_type", "water") for a in frames[:10]}
    frames[3].info["head"] = "scan"
    write(tmp_path / "0.extxyz", frames[:10])
    code, _, err = run(capsys, "prepare", tmp_path / "0.extxyz", "-o", tmp_path / "two", "--r-max", 4, "--head", "pbe", "-j", 1)
    assert code == 2 and "frame 3: its head is scan, --head says pbe" in err


def test_split_is_the_trainers(tmp_path, capsys):
    from macekit.training.data import split_valid

    frames = structures(50)
    isolated = [k for k in range(50) if len(frames[k]) == 1]
    frames[isolated[0]].info.update(config_type="IsolatedAtom", REF_energy=-1.0)
    write(tmp_path / "a.extxyz", frames)
    dataset = make(capsys, tmp_path / "data", tmp_path / "a.extxyz", "--valid-fraction", 0.2, "--seed", 5)
    rest = [k for k in range(50) if k != isolated[0]]
    train, valid = split_valid(rest, 0.2, 5)
    assert dataset.rows("train").tolist() == [isolated[0], *train] and dataset.rows("valid").tolist() == valid
    for k in range(4):
        write(tmp_path / f"{k}.extxyz", structures(10 + k, seed=k))
    dataset = make(capsys, tmp_path / "files", *[tmp_path / f"{k}.extxyz" for k in range(4)], "--valid-fraction", 0.3, "--split-files")
    files = [{dataset.source(i).split()[0] for i in dataset.rows(part)} for part in ("train", "valid")]
    assert len(files[0] | files[1]) == 4 and not files[0] & files[1] and files[1]
    assert sorted([*dataset.rows("train"), *dataset.rows("valid")]) == list(range(len(dataset)))


def water(path, num=24):
    frames = [a for a in structures(200, seed=4) if len(a) > 2 and "REF_energy" in a.info and "REF_forces" in a.arrays][:num]
    return write(path, frames)


@pytest.mark.parametrize("split", ["by the trainer", "prepared"])
def test_training_on_a_prepared_dataset_is_the_same(tmp_path, capsys, split):
    """Step by step the same numbers as with the file itself."""
    pytest.importorskip("torch")
    from macekit.training.run import run as train

    file = water(tmp_path / "a.extxyz")
    make(capsys, tmp_path / "data", file, *(["--valid-fraction", 0.25, "--seed", 3] if split == "prepared" else []))
    logs = []
    for name, source in (("file", file), ("folder", tmp_path / "data")):
        code = train(["--name", name, "--work_dir", str(tmp_path / name), "--train_file", str(source), "--r_max", "4", "--num_channels", "4", "--max_L", "0", "--max_num_epochs", "2",
                      "--valid_fraction", "0.25", "--seed", "3", "--batch_size", "5", "--plot", "false", "--config_type_weights", "{liquid: 2.0}"])
        assert code == 0, capsys.readouterr().err
        lines = [json.loads(line) for line in open(tmp_path / name / f"{name}.log.jsonl")]
        logs.append([(line["kind"], line.get("loss")) for line in lines if line["kind"] in ("step", "validation")])
    assert logs[0] == logs[1] and len(logs[0]) > 8


def test_the_trainer_and_heads_or_inputs_of_a_dataset(tmp_path, capsys):
    pytest.importorskip("torch")
    from macekit.training.run import run as train

    frames = ase.io.read(water(tmp_path / "a.extxyz"), ":")
    for k, name in enumerate("ab"):
        write(tmp_path / f"{name}.extxyz", frames[k::2])
    make(capsys, tmp_path / "data", "--head", "a", tmp_path / "a.extxyz", "--head", "b", tmp_path / "b.extxyz")
    base = ["--name", "x", "--work_dir", str(tmp_path / "run"), "--r_max", "4.5", "--num_channels", "4", "--max_L", "0", "--max_num_epochs", "1", "--plot", "false", "--dry_run"]
    data = str(tmp_path / "data")
    assert train([*base, "--train_file", data]) == 2
    assert "has the heads a, b; name them under heads" in capsys.readouterr().err
    assert train([*base, "--heads", json.dumps({"a": {"train_file": data}, "c": {"train_file": data}})]) == 2
    assert "but no c" in capsys.readouterr().err
    assert train([*base, "--heads", json.dumps({"a": {"train_file": data}, "b": {"train_file": data}})]) == 0
    captured = capsys.readouterr()
    assert "numbers of neighbours are for r_max 4 A" in captured.out + captured.err
    make(capsys, tmp_path / "one", tmp_path / "a.extxyz")
    specs = json.dumps({"total_charge": {"type": "continuous", "per": "graph", "in_dim": 1, "emb_dim": 4}})
    code = train([*base, "--train_file", str(tmp_path / "one"), "--embedding_specs", specs])
    assert code == 2 and "has no total_charge of this frame" in capsys.readouterr().err
