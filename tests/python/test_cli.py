# SPDX-License-Identifier: MIT
"""The command line: what it writes, and a sentence and an exit code for every mistake."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile

import ase.build
import ase.io
import numpy as np
import pytest

from macekit import MACECalculator
from macekit.cli import main
from macekit.mace_torch import read_model


@pytest.fixture
def frames_file(tmp_path):
    frames = []
    for k in range(3):
        atoms = ase.build.bulk("Si", "diamond", a=5.0 + 0.1 * k, cubic=True)
        atoms.rattle(0.1, seed=k)
        atoms.info.update(REF_energy=-800.0, config_type="a" if k else "b", note="kept")
        atoms.arrays["REF_forces"] = np.zeros((8, 3))
        frames.append(atoms)
    frames.append(ase.Atoms("O2", positions=[[0, 0, 0], [0, 0, 1.2]]))
    path = tmp_path / "in.extxyz"
    ase.io.write(path, frames)
    return path


def test_eval_writes_what_the_calculator_gives(tmp_path, tiny_potential, frames_file, capsys):
    out = tmp_path / "out.extxyz"
    assert main(["eval", tiny_potential, str(frames_file), "-o", str(out), "--prefix", "x_"]) == 0
    text = capsys.readouterr().out
    assert "4 of 4 frames evaluated" in text and "config_type" in text
    before, after = ase.io.read(frames_file, ":"), ase.io.read(out, ":")
    for a, b in zip(before, after):
        a.calc = MACECalculator(tiny_potential)
        assert b.info["x_energy"] == pytest.approx(a.get_potential_energy(), abs=1e-12)
        assert np.abs(b.arrays["x_forces"] - a.get_forces()).max() < 1e-14
        assert b.arrays["x_node_energy"].sum() == pytest.approx(b.info["x_energy"], abs=1e-10)
        if a.pbc.all():
            assert np.abs(b.info["x_stress"] - a.get_stress()).max() < 1e-15
            assert b.info["note"] == "kept" and b.info["REF_energy"] == -800.0
        else:
            assert "x_stress" not in b.info
        assert (a.pbc == b.pbc).all() and np.allclose(a.cell, b.cell, atol=1e-14)


def test_eval_prints_the_errors_of_the_trainer_all_last(tmp_path, tiny_potential, frames_file, capsys):
    """Stress: all nine components, as in the trainer's table, though files may hold six."""
    frames, rng = ase.io.read(frames_file, ":3"), np.random.default_rng(3)
    squares = []
    for atoms in frames:
        atoms.calc = MACECalculator(tiny_potential)
        error = rng.normal(size=6)
        atoms.info["REF_stress"] = atoms.get_stress() - error
        squares += (error[[0, 5, 4, 5, 1, 3, 4, 3, 2]] ** 2).tolist()
        atoms.calc = None
    ase.io.write(frames_file, frames)
    assert main(["eval", tiny_potential, str(frames_file), "-o", str(tmp_path / "out.extxyz")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:4]]
    assert [row[0] for row in rows] == ["b", "a", "all"]
    assert float(rows[2][6]) == pytest.approx(1000 * np.sqrt(np.mean(squares)), abs=2e-3)


def test_eval_reports_the_frame_that_fails(tmp_path, tiny_potential, capsys):
    ase.io.write(tmp_path / "in.extxyz", [ase.Atoms("O"), ase.Atoms("O2", positions=[[0, 0, 0], [0, 0, 1e-6]])])
    assert main(["eval", tiny_potential, str(tmp_path / "in.extxyz"), "-o", str(tmp_path / "out.extxyz")]) == 2
    captured = capsys.readouterr()
    assert "frame 1" in captured.err and "1 of 2 frames" in captured.out
    assert len(ase.io.read(tmp_path / "out.extxyz", ":")) == 2


def test_show(tiny_potential, capsys):
    assert main(["show", tiny_potential, "--program"]) == 0
    text = capsys.readouterr().out
    assert "O Si" in text and "convolution" in text
    assert main(["show", tiny_potential, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["elements"] == ["O", "Si"]


def test_help_teaches(capsys):
    assert main(["--help"]) == 0
    assert "macekit train" in capsys.readouterr().out
    for verb in ("eval", "show", "convert"):
        with pytest.raises(SystemExit) as stop:
            main([verb, "--help"])
        assert stop.value.code == 0 and "macekit " + verb in capsys.readouterr().out


def archive(path, payload):
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("m/data.pkl", payload)
        z.writestr("m/byteorder", "little")


def wrong_inputs(tmp_path, potential, structures):
    """name: (arguments, exit code, part of the sentence)"""
    text, empty, damaged, out = (str(tmp_path / n) for n in ("text.mace", "empty.extxyz", "damaged.extxyz", "o.extxyz"))
    open(text, "w").write("not a potential, but longer than eight bytes")
    open(empty, "w").close()
    open(damaged, "w").write("3\nProperties=species:S:1:pos:R:3\nO 0 0\n")
    xenon, zipped, truncated, noise = (str(tmp_path / n) for n in ("xe.extxyz", "z.model", "t.mace", "noise.model"))
    ase.io.write(xenon, [ase.Atoms("O"), ase.Atoms("Xe")])
    headed = str(tmp_path / "head.extxyz")
    atoms = ase.Atoms("O")
    atoms.info["head"] = "dft"
    ase.io.write(headed, atoms)
    archive(zipped, pickle.dumps({"a": 1}, 2))
    open(truncated, "wb").write(open(potential, "rb").read()[:-100])
    open(noise, "wb").write(os.urandom(100))
    ev = ["eval", potential, structures, "-o", out]
    return {
        "no verb": ([], 2, ""),
        "verb": (["evl"], 2, "did you mean eval?"),
        "option": ([*ev, "--precison", "float64"], 2, "did you mean --precision?"),
        "no output": (["eval", potential, structures], 2, "-o"),
        "precision": ([*ev, "--precision", "double"], 2, "float64 or float32"),
        "batch": ([*ev, "--batch-atoms", "0"], 2, "must be positive"),
        "batch type": ([*ev, "--batch-atoms", "many"], 2, "invalid int value"),
        "prefix": ([*ev, "--prefix", ""], 2, "--prefix must not be empty"),
        "same file": (["eval", potential, structures, "-o", structures], 2, "the same file"),
        "output kind": (["eval", potential, structures, "-o", "x.json"], 2, "must end in .extxyz"),
        "output folder": (["eval", potential, structures, "-o", str(tmp_path / "no/x.extxyz")], 2, "does not exist"),
        "no potential": (["eval", str(tmp_path / "no.mace"), structures, "-o", out], 3, "no such file"),
        "text potential": (["eval", text, structures, "-o", out], 3, "not a macekit potential"),
        "truncated potential": (["eval", truncated, structures, "-o", out], 3, "truncated"),
        "model as potential": (["eval", zipped, structures, "-o", out], 3, "macekit convert"),
        "no structures": (["eval", potential, str(tmp_path / "no.extxyz"), "-o", out], 3, "no such file"),
        "empty structures": (["eval", potential, empty, "-o", out], 3, "ASE cannot read it"),
        "damaged structures": (["eval", potential, damaged, "-o", out], 3, "ASE cannot read it"),
        "element": (["eval", potential, xenon, "-o", out], 2, "frame 1: the potential does not know element Xe"),
        "head": (["eval", potential, headed, "-o", out], 2, "frame 0: the potential has no head 'dft'; it has: Default"),
        "show nothing": (["show", str(tmp_path / "no.mace")], 3, "no such file"),
        "convert nothing": (["convert", str(tmp_path / "no.model"), "-o", str(tmp_path / "a.mace")], 3, "no such file"),
        "convert noise": (["convert", noise, "-o", str(tmp_path / "a.mace")], 3, "not a mace-torch model"),
        "convert a dict": (["convert", zipped, "-o", str(tmp_path / "a.mace")], 2, "not a mace-torch model"),
        "convert to wrong name": (["convert", zipped, "-o", str(tmp_path / "a.pth")], 2, "must end in .mace"),
        "convert mace": (["convert", potential, "-o", str(tmp_path / "a.mace")], 2, "is a .mace file already"),
    }


NAMES = ["no verb", "verb", "option", "no output", "precision", "batch", "batch type", "prefix", "same file", "output kind", "output folder", "no potential",
         "text potential", "truncated potential", "model as potential", "no structures", "empty structures", "damaged structures", "element", "head",
         "show nothing", "convert nothing", "convert noise", "convert a dict", "convert to wrong name", "convert mace"]


@pytest.mark.parametrize("name", NAMES)
def test_wrong_input_gets_a_sentence_and_a_code(tmp_path, tiny_potential, frames_file, capsys, name):
    cases = wrong_inputs(tmp_path, tiny_potential, str(frames_file))
    assert set(cases) == set(NAMES)
    arguments, code, part = cases[name]
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert part in captured.err, captured.err
    assert captured.err.count("\n") <= 1 and "Traceback" not in captured.err
    assert not (tmp_path / "o.extxyz").exists() and not (tmp_path / "a.mace").exists()


def test_exit_code_of_the_process(tiny_potential):
    done = subprocess.run([sys.executable, "-m", "macekit", "show", "absent.mace"], capture_output=True, text=True)
    assert done.returncode == 3 and done.stderr.count("\n") == 1


# ---- pickles that try to do something ----

class _Touch:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


def _global(text, *rest):
    """GLOBAL opcode for module and name, then raw opcodes."""
    return b"\x80\x02c" + text.encode() + b"".join(rest) + b"."


def hostile(marker):
    command = f"touch {marker}"
    nested = pickle.dumps(_Touch(os.system, command), 2)
    return {
        "os.system": nested,
        "eval": pickle.dumps(_Touch(eval, f"open({marker!r}, 'w')"), 2),
        "exec": pickle.dumps(_Touch(exec, f"open({marker!r}, 'w')"), 2),
        "getattr": _global("builtins\ngetattr\n", b"c" + b"os\nsystem\n", b"X\x06\x00\x00\x00system\x86R"),
        "subprocess": pickle.dumps(_Touch(subprocess.call, ["touch", str(marker)]), 2),
        "open": pickle.dumps(_Touch(io.open, str(marker), "w"), 2),
        "import": pickle.dumps(_Touch(__import__, "antigravity"), 2),
        "pickle.loads": pickle.dumps(_Touch(pickle.loads, nested), 2),
        "torch.load": _global("torch\nload\n", b"X\x01\x00\x00\x00a\x85R"),
        "dotted": b"\x80\x04\x8c\x05torch\x8c\x0b_utils.exec\x93\x8c\x011\x85R.",
        "numpy fromfile": _global("numpy\nfromfile\n", b"X\x0b\x00\x00\x00/etc/passwd\x85R"),
        "ext": b"\x80\x02\x82\x01.",
        "inst": b"(S'touch'\nios\nsystem\n.",
        "endless memo": b"\x80\x02" + b"]" * 1000000 + b".",
        "huge bytes": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f" + b"x.",
        "no stop": b"\x80\x02]",
    }


@pytest.mark.parametrize("name", list(hostile("x")))
def test_hostile_pickles_only_fail(tmp_path, name):
    marker = tmp_path / "run"
    path = tmp_path / "evil.model"
    archive(path, hostile(str(marker))[name])
    with pytest.raises((ValueError, OSError)):
        read_model(path)
    assert not marker.exists()
