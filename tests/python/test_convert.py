# SPDX-License-Identifier: MIT
"""mace-torch's files: what is read from them, what is refused, and what is written for mace-torch."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import ase.io
import numpy as np
import pytest

from macekit import _core
from macekit.cli import main
from macekit.mace_torch import convert, convert_to_potential, verify, write

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import make_potential  # noqa: E402

SUPPORT = Path(__file__).parents[1] / "support"
sys.path.insert(0, str(SUPPORT))
from mace_torch_cases import made_by_mace_torch, peer_python  # noqa: E402

BROKEN_ON_PURPOSE = {
    "bad_correlations": "different correlations",
    "bad_pseudoscalars": "0o",
    "bad_hole": "4x0e\\+4x2e",
    "bad_unequal": "4x0e\\+2x1o",
    "bad_axial": "4x1e",
    "bad_dead_hole": "dead features between live ones",
    "dipoles": "a dipole model",
    "energy_dipoles": "energies and dipoles",
}
CASES = [
    "residual",
    "agnostic",
    "density",
    "attention",
    "mixed",
    "nonlinear",
    "edges",
    "gaussian",
    "chebyshev",
    "tanh",
    "abs",
    "ungated",
    "so3",
    "dead",
    "dead_agnostic",
    "dead_nonlinear",
    "dead_attention",
    "correlation_1",
    "correlation_4",
    "kept",
    "float32",
    "last_only",
    "old",
    "old_gate",
]
DEAD = [name for name in CASES if name.startswith("dead")]


def peer(script, *arguments):
    """Runs a script in mace-torch's environment."""
    done = subprocess.run(
        [peer_python(), str(SUPPORT / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.environ.get("MACEKIT_PEER_PYTHONPATH", ""), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT ")]


@pytest.fixture(scope="session")
def files():
    return made_by_mace_torch("make_conversion_cases.py")


def quiet(path, heads=None):
    with pytest.warns() if "dead" in Path(path).name else _nothing():
        return convert(path, heads)


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


# ---- reading ----


@pytest.mark.parametrize("name", CASES)
def test_hyperparameters_are_the_constructors(files, name):
    hp, _, metadata = quiet(files / f"{name}.model")
    made = json.loads((files / f"{name}.json").read_text())
    live = made["hidden_irreps"].replace("+4x1o", "") if name in DEAD else made["hidden_irreps"]
    T, made["r_max"] = made["num_interactions"], float(np.dtype(made["dtype"]).type(made["r_max"]))
    expected = {"model": made["cls"], "num_interactions": T, "num_channels": int(live.split("x")[0]), "max_L": live.count("+") if T > 1 else 0}
    for key in (
        "atomic_numbers",
        "r_max",
        "num_bessel",
        "num_polynomial_cutoff",
        "max_ell",
        "interaction_first",
        "interaction",
        "correlation",
        "radial_MLP",
        "avg_num_neighbors",
        "heads",
    ):
        expected[key] = made[key]
    for key, default in {
        "radial_type": None,
        "gate": None,
        "distance_transform": "None",
        "pair_repulsion": False,
        "apply_cutoff": True,
        "use_so3": False,
        "use_agnostic_product": False,
        "use_last_readout_only": False,
        "use_edge_irreps_first": False,
        "use_embedding_readout": False,
    }.items():
        expected[key] = made.get(key, default)
    expected["keep_last_layer_irreps"] = name == "kept"
    expected["edge_channels"] = int(made["edge_irreps"].split("x")[0]) if "edge_irreps" in made else 0
    expected["edge_max_L"] = made["edge_irreps"].count("+") if "edge_irreps" in made and T > 1 else -1
    if T > 1:
        expected.update(readout=made.get("readout_cls", "NonLinearReadoutBlock"), MLP_width=8)
    assert {key: hp[key] for key in expected} == expected
    assert [e["name"] for e in hp["embeddings"]] == list(made.get("embedding_specs", {}))
    assert metadata["dtype"] == made["dtype"]
    json.dumps([hp, metadata])


@pytest.mark.parametrize("name", CASES)
def test_tensors_are_the_state_dicts(files, name):
    hp, tensors, _ = quiet(files / f"{name}.model")
    potential = _core.Potential.from_tensors(json.dumps(hp), tensors)  # checks that the set of tensors and every shape is complete
    assert set(potential.tensors) == set(tensors)
    state = np.load(files / f"{name}.npz")
    for key, tensor in tensors.items():
        if key.endswith(".index"):
            continue
        if key.endswith(".value"):
            dense = state[key[: -len(".value")]].astype(float)
            index = tensors[key[: -len("value")] + "index"].T
            index = tuple(index if dense.ndim == len(index) else index[1:])
            assert np.array_equal(dense[index], tensor)
            rest = dense.copy()
            rest[index] = 0
            assert np.abs(rest).max() < 1e-14
        else:
            assert np.array_equal(state[key].astype(float).reshape(-1)[: tensor.size], tensor.reshape(-1)), key
            assert state[key].size == tensor.size or name in DEAD


def test_dead_features_are_announced(files):
    with pytest.warns(UserWarning, match="always zero; they were left out"):
        metadata = convert(files / "dead.model")[2]
    assert "4x0e+4x1o" in metadata["notes"][0]


@pytest.mark.parametrize("name", BROKEN_ON_PURPOSE)
def test_other_models_are_refused_with_a_sentence(files, name, capsys, tmp_path):
    with pytest.raises(ValueError, match=BROKEN_ON_PURPOSE[name]):
        convert(files / f"{name}.model")
    assert main(["convert", str(files / f"{name}.model"), "-o", str(tmp_path / "x.mace")]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "x.mace").exists()


@pytest.mark.parametrize("name, part", [("checkpoint.pt", "a checkpoint"), ("state.pt", "holds a table")])
def test_weights_alone_are_refused(files, name, part):
    with pytest.raises(ValueError, match=part):
        convert(files / name)


def same(one, two):
    assert one[0] == two[0]
    assert set(one[1]) == set(two[1])
    for name, tensor in one[1].items():
        assert np.array_equal(tensor, two[1][name]), name


@pytest.mark.parametrize("name", ["agnostic", "tanh", "ungated", "density"])
@pytest.mark.parametrize("kind", ["_compiled.pt", "-lammps.pt"])
@pytest.mark.filterwarnings("ignore:.*was made for LAMMPS")
def test_torchscript_holds_the_same_model(files, name, kind):
    same(convert(files / f"{name}{kind}"), convert(files / f"{name}.model"))


def test_nameless_heads_must_be_given(files, tmp_path, capsys):
    path = str(files / "nameless_compiled.pt")
    with pytest.raises(ValueError, match="2 heads without names"):
        convert(path)
    assert convert(path, ["p", "q"])[0]["heads"] == ["p", "q"]
    assert main(["convert", path, "-o", str(tmp_path / "a.mace"), "--heads", "p"]) == 2
    assert "correct --heads" in capsys.readouterr().err
    assert main(["convert", path, "-o", str(tmp_path / "a.mace"), "--heads", "p,q"]) == 0
    assert json.loads(_core.Potential.load(str(tmp_path / "a.mace")).hyperparameters_json)["heads"] == ["p", "q"]
    with pytest.raises(ValueError, match="leave the option out"):
        convert(files / "residual.model", ["other"])


@pytest.mark.parametrize("name", ["cue_full", "cue_reduced"])
@pytest.mark.parametrize("kind", ["_cueq.model", "-mliap_lammps.pt"])
def test_cuequivariance_holds_the_same_model(files, name, kind):
    if not (files / f"{name}{kind}").exists():
        pytest.skip("mace-torch's environment has no cuequivariance-torch")
    one, two = convert(files / f"{name}{kind}"), convert(files / f"{name}.model")
    if name == "cue_full":
        for key, tensor in two[1].items():
            assert np.allclose(tensor, one[1][key], rtol=0, atol=1e-12), key
    potentials = [_core.Potential.from_tensors(json.dumps(hp), tensors) for hp, tensors, _ in (one, two)]
    frames = verify.probes(one[0])
    energy, force = verify.differences(*(verify.run_probes(p, frames) for p in potentials))
    assert energy < 1e-12 and force < 1e-12


def edited(source, target, old, new, count=-1):
    """A copy of a model in which bytes of the pickle are replaced."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for name in before.namelist():
            data = before.read(name)
            if name.endswith("data.pkl"):
                assert old in data
                data = data.replace(old, new, count)
            after.writestr(name, data)
    return target


def test_a_model_saved_on_a_gpu(files, tmp_path):
    path = edited(files / "residual.model", tmp_path / "residual.model", b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0", 1)
    same(convert(path), convert(files / "residual.model"))


@pytest.mark.parametrize(
    "old, new, part",
    [
        (b"RealAgnosticResidualInteractionBlock", b"RealAgnosticDipoleInterestingBlocks_", "interaction block is RealAgnosticDipole"),
        (b"ScaleShiftMACE", b"AnotherModelXY", "AnotherModelXY"),
        (b"BesselBasis", b"SplineBasis", "radial basis is SplineBasis"),
        (b"NonLinearReadoutBlock", b"QuadraticReadoutBlock", "read-out is QuadraticReadoutBlock"),
        (b"ctorch.nn.functional\nsilu", b"ctorch.nn.functional\nmish", "activation is mish"),
        (b"linear_up", b"linear_us", "linear_u"),
    ],
)
def test_unknown_parts_are_named(files, tmp_path, old, new, part):
    with pytest.raises(ValueError, match=part):
        convert_to_potential(edited(files / "residual.model", tmp_path / "x.model", old, new))


def test_normalisation_of_paths_is_checked(files, tmp_path):
    import struct

    with pytest.raises(ValueError, match="the paths of .* are unusual"):
        convert(edited(files / "residual.model", tmp_path / "x.model", b"G" + struct.pack(">d", 3**-0.5), b"G" + struct.pack(">d", 0.5)))


# ---- writing ----


@pytest.fixture(scope="session")
def written(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    for name in CASES:
        write.write(folder / f"{name}.model", *quiet(files / f"{name}.model"))
    return folder


@pytest.fixture(scope="session")
def compared(files, written):
    return dict(peer("compare_mace_torch.py", files, written, *[n for n in CASES if n not in ("old", "old_gate")]))


@pytest.mark.parametrize("name", CASES)
def test_written_models_are_read_back(files, written, name):
    one, two = quiet(files / f"{name}.model"), convert(written / f"{name}.model")
    same(one, two)
    assert one[2] == two[2]


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("old", "old_gate")])
def test_mace_torch_computes_the_same_with_written_models(compared, name):
    result = compared[name]
    limit = 1e-13 if name != "float32" else 1e-6
    assert result["forces"] > 0 and max(result["differences"].values()) <= limit * max(1, result["forces"])
    assert result["untouched"] and result["double"] == "torch.float64" and result["dtype"] == ("torch.float32" if name == "float32" else "torch.float64")
    if name not in DEAD:
        assert result["same_keys"] and result["changed"] == [] and result["grad"] == []
    if result["config"] is not None:
        assert {"r_max", "hidden_irreps", "heads", "avg_num_neighbors"} <= set(result["config"])


def test_macekits_own_potential_reaches_mace_torch(tiny_potential, tmp_path, capsys):
    python = peer_python()
    out, back = str(tmp_path / "tiny.model"), str(tmp_path / "back.mace")
    assert main(["convert", tiny_potential, "-o", out, "--mace-torch", python]) == 0, capsys.readouterr().err
    assert "mace-torch: largest differences" in capsys.readouterr().out
    assert main(["convert", out, "-o", back, "--mace-torch", python]) == 0
    one, two = _core.Potential.load(tiny_potential), _core.Potential.load(back)
    assert one.hyperparameters_json == two.hyperparameters_json
    assert all(np.array_equal(t, two.tensors[n]) for n, t in write.in_order(one.tensors).items())


def test_chebyshev_models_are_compared_by_energy(tmp_path, capsys):
    """mace-torch's forces of such models are wrong, which is no fault of the conversion."""
    python = peer_python()
    potential = make_potential(tmp_path / "p.mace", radial_type="chebyshev", distance_transform="Agnesi")
    assert main(["convert", potential, "-o", str(tmp_path / "p.model"), "--mace-torch", python]) == 0, capsys.readouterr().err
    assert "forces are not compared" in capsys.readouterr().out


# ---- verification ----


@pytest.mark.parametrize("name", CASES)
def test_the_command_converts_both_ways(files, tmp_path, capsys, name):
    first, model, second = (str(tmp_path / n) for n in ("first.mace", "back.model", "second.mace"))
    assert main(["convert", str(files / f"{name}.model"), "-o", first]) == 0, capsys.readouterr().err
    assert main(["convert", first, "-o", model]) == 0 and main(["convert", model, "-o", second]) == 0
    one, two = _core.Potential.load(first), _core.Potential.load(second)
    assert one.hyperparameters_json == two.hyperparameters_json
    assert all(np.array_equal(t, two.tensors[n]) for n, t in one.tensors.items())
    assert main(["show", second]) == 0 and main(["show", second, "--check"]) == 0, capsys.readouterr().err


def labelled(potential, path, shift=0.0, prefix="MACE_"):
    frames = verify.probes(json.loads(potential.hyperparameters_json))
    for a, r in zip(frames, verify.run_probes(potential, frames)):
        a.info[prefix + "energy"], a.arrays[prefix + "forces"] = r["energy"] + shift, np.array(r["forces"])
    ase.io.write(path, frames)
    return str(path)


def test_check_against_stored_labels(files, tmp_path, capsys):
    model, out = str(files / "residual.model"), tmp_path / "a.mace"
    potential = convert_to_potential(model)
    good, bad = labelled(potential, tmp_path / "good.extxyz"), labelled(potential, tmp_path / "bad.extxyz", 0.01, "x_")
    assert main(["convert", model, "-o", str(out), "--check", bad, "--prefix", "x_"]) == 2
    assert "more than 1e-06; nothing was written" in capsys.readouterr().err and not list(tmp_path.glob("*.mace"))
    assert main(["convert", model, "-o", str(out), "--check", bad]) == 2
    assert "no frame has MACE_energy" in capsys.readouterr().err
    assert main(["convert", model, "-o", str(out), "--check", good]) == 0
    assert "good.extxyz: largest differences" in capsys.readouterr().out and out.exists()
    assert main(["convert", model, "-o", str(out), "--check", bad, "--prefix", "x_", "--tolerance", "0.1"]) == 0


def test_show_check_finds_another_function(files, tmp_path, capsys):
    path = str(tmp_path / "a.mace")
    assert main(["convert", str(files / "residual.model"), "-o", path]) == 0
    assert "product basis: as macekit builds it" in capsys.readouterr().out
    assert main(["show", path, "--check"]) == 0
    assert "2 stored structures" in capsys.readouterr().out
    assert main(["show", path]) == 0
    text = capsys.readouterr().out
    assert "probes" not in text and "KiB an atom" in text and "O" in text
    potential = _core.Potential.load(path)
    metadata = json.loads(potential.metadata_json)
    metadata["probes"][1]["energy"] += 1e-3
    _core.Potential.from_tensors(potential.hyperparameters_json, potential.tensors, json.dumps(metadata)).save(path)
    assert main(["show", path, "--check"]) == 2
    assert "this installation computes something else" in capsys.readouterr().err


def test_show_check_needs_stored_structures(tiny_potential, capsys):
    assert main(["show", tiny_potential, "--check"]) == 2
    assert "holds no structures to check" in capsys.readouterr().err


def test_an_edited_basis_is_noticed(files, tmp_path, capsys):
    hp, tensors, metadata = convert(files / "residual.model")
    name = "products.0.symmetric_contractions.contractions.0.U_matrix_3.value"
    tensors[name] = tensors[name].copy()
    tensors[name][5] *= 1.01
    write.write(tmp_path / "edited.model", hp, tensors, metadata)
    assert main(["convert", str(tmp_path / "edited.model"), "-o", str(tmp_path / "a.mace")]) == 2
    assert "its product basis differs" in capsys.readouterr().err and not (tmp_path / "a.mace").exists()


def test_an_unknown_tensor_is_an_error(files, tmp_path, capsys):
    path = edited(files / "residual.model", tmp_path / "x.model", b"X\x0e\0\0\0bessel_weights", b"X\x0e\0\0\0bessel_weighty")
    assert main(["convert", str(path), "-o", str(tmp_path / "a.mace")]) == 2
    assert "bessel_weigh" in capsys.readouterr().err


def test_mace_torch_that_is_not_there(files, tmp_path, capsys):
    assert main(["convert", str(files / "residual.model"), "-o", str(tmp_path / "a.mace"), "--mace-torch", "/no/python"]) == 2
    assert "cannot be run" in capsys.readouterr().err and not (tmp_path / "a.mace").exists()
