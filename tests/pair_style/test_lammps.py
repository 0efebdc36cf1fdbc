# SPDX-License-Identifier: MIT
"""pair_style mace and mace/kk against ASE on the same structures; ranks, newton, hybrid, units, and wrong input."""

import os
import shutil
import sys
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
from ase.calculators.lammps import Prism

from macekit import MACECalculator

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
import lammps  # noqa: E402
from conftest import make_potential  # noqa: E402

PRESSURE = 1.6021765e6  # LAMMPS's own bar per eV/A^3 in metal units

SCRIPT = """
units metal
atom_style atomic
newton {newton}
comm_style {comm}
read_data atoms.data
pair_style {style}
{coeff}
mass * 20.0
neighbor 0.8 bin
compute e all pe/atom
compute e_sum all reduce sum c_e
compute s all stress/atom NULL
compute s_sum all reduce sum c_s[1] c_s[2] c_s[3] c_s[4] c_s[5] c_s[6]
thermo_style custom step pe c_e_sum pxx pyy pzz pxy pxz pyz vol c_s_sum[1] c_s_sum[4] etotal
thermo_modify format float %.15g
dump 1 all custom 1 forces.dump id fx fy fz
dump_modify 1 sort id format float %.15g
run 0
undump 1
velocity all create 300 5 loop geom
fix 1 all nve
timestep 0.0005
thermo 5
run {steps}
"""


@pytest.fixture(scope="module")
def silica():
    atoms = lammps.rattled_silica(1)  # made triclinic
    atoms.set_cell(atoms.cell.array @ np.array([[1, 0, 0], [0.08, 1, 0], [0.05, -0.06, 1.02]]), scale_atoms=True)
    atoms.wrap()
    return atoms


@pytest.fixture(scope="module")
def expected(silica, tiny_potential):
    atoms = silica.copy()
    atoms.calc = MACECalculator(tiny_potential)
    prism = Prism(atoms.cell.array)
    stress = prism.rot_mat.T @ atoms.get_stress(voigt=False) @ prism.rot_mat
    return atoms.get_potential_energy(), prism.vector_to_lammps(atoms.get_forces()), -stress * PRESSURE


def write_data(folder, atoms, elements=("O", "Si")):
    ase.io.write(Path(folder) / "atoms.data", atoms, format="lammps-data", specorder=list(elements), atom_style="atomic")


def script(potential, newton="on", comm="brick", style="mace", coeff=None, steps=10):
    return SCRIPT.format(newton=newton, comm=comm, style=style, coeff=coeff or f"pair_coeff * * {potential} O Si", steps=steps)


FINAL = {}


@pytest.mark.parametrize("newton", ["on", "off"])
@pytest.mark.parametrize("kokkos", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_equals_ase(tmp_path, silica, expected, tiny_potential, ranks, kokkos, newton):
    energy, forces, pressure = expected
    write_data(tmp_path, silica)
    code, output = lammps.run(tmp_path, script(tiny_potential, newton), ranks, newton if kokkos else None)
    assert code == 0, output[-2000:]
    start, end = ({k: v[-1] for k, v in block.items()} for block in lammps.thermo(output))
    assert abs(start["PotEng"] - energy) / len(silica) < 1e-9
    assert abs(start["c_e_sum"] - energy) / len(silica) < 1e-9
    got = np.loadtxt(tmp_path / "forces.dump", skiprows=9)[:, 1:]
    assert np.abs(forces).max() > 0.1, "the test potential must exert forces"
    assert np.abs(got - forces).max() < 1e-8
    tensor = np.array([start[k] for k in ("Pxx", "Pyy", "Pzz", "Pxy", "Pxz", "Pyz")])
    reference = pressure[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
    assert np.abs(tensor - reference).max() < 1e-6 * np.abs(reference).max()
    # compute stress/atom sums to minus pressure times volume
    assert abs(start["c_s_sum[1]"] / start["Volume"] + start["Pxx"]) < 1e-6 * abs(start["Pxx"])
    assert abs(start["c_s_sum[4]"] / start["Volume"] + start["Pxy"]) < 1e-6 * np.abs(reference).max()
    # the same trajectory whatever the ranks
    FINAL.setdefault("energy", end["TotEng"])
    assert abs(end["TotEng"] - FINAL["energy"]) < 1e-8 * abs(FINAL["energy"])
    assert abs(end["TotEng"] - start["TotEng"]) / len(silica) > 0  # velocities were created in between


# The path of a GPU on the host's own kernels: `device portable`. LAMMPS communicates from its arrays on the device where its package says so.
ON_DEVICE = ("gpu/aware", "on", "comm", "device")


@pytest.mark.parametrize("newton", ["on", "off"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("ranks, kokkos, package, comm", [
    (1, False, (), "brick"), (2, False, (), "brick"), (1, True, ON_DEVICE, "brick"), (2, True, ON_DEVICE, "brick"), (4, True, ON_DEVICE, "brick"),
    (2, True, (), "brick"), (4, True, ON_DEVICE, "tiled")])
def test_device_equals_ase(tmp_path, silica, expected, tiny_potential, ranks, kokkos, package, comm, precision, newton):
    energy, forces, pressure = expected
    write_data(tmp_path, silica)
    text = script(tiny_potential, newton, comm, f"mace device portable precision {precision}")
    code, output = lammps.run(tmp_path, text, ranks, newton if kokkos else None, package=package)
    assert code == 0, output[-2000:]
    start, end = ({k: v[-1] for k, v in block.items()} for block in lammps.thermo(output))
    exact = precision == "float64"
    assert abs(start["PotEng"] - energy) / len(silica) < (1e-9 if exact else 1e-5)
    assert abs(start["c_e_sum"] - start["PotEng"]) / len(silica) < 1e-9
    got = np.loadtxt(tmp_path / "forces.dump", skiprows=9)[:, 1:]
    assert np.abs(got - forces).max() < (1e-8 if exact else 1e-4 * np.abs(forces).max())
    tensor = np.array([start[k] for k in ("Pxx", "Pyy", "Pzz", "Pxy", "Pxz", "Pyz")])
    reference = pressure[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
    assert np.abs(tensor - reference).max() < (1e-6 if exact else 1e-3) * np.abs(reference).max()
    assert abs(start["c_s_sum[1]"] / start["Volume"] + start["Pxx"]) < 1e-6 * abs(start["Pxx"])
    assert abs(start["c_s_sum[4]"] / start["Volume"] + start["Pxy"]) < 1e-6 * np.abs(reference).max()
    if exact and "energy" in FINAL:
        assert abs(end["TotEng"] - FINAL["energy"]) < 1e-8 * abs(FINAL["energy"])


def test_device_follows_atoms_over_new_neighbour_lists(tmp_path, silica, tiny_potential):
    write_data(tmp_path, silica)
    hot = script(tiny_potential, steps=60).replace("create 300", "create 4000").replace("neighbor 0.8 bin", "neighbor 0.3 bin")
    ends = []
    for style, kokkos in (("mace", None), ("mace device portable", None), ("mace device portable", "on")):
        code, output = lammps.run(tmp_path, hot.replace("pair_style mace", f"pair_style {style}"), 2, kokkos, package=ON_DEVICE)
        assert code == 0, output[-2000:]
        builds = int(output.split("Neighbor list builds =")[-1].split()[0])
        assert builds > 2, "the atoms must move far enough"
        ends.append(lammps.thermo(output)[1]["TotEng"][-1])
    assert np.ptp(ends) < 1e-9 * abs(ends[0])


def test_tiled_communication_equals_brick(tmp_path, silica, expected, tiny_potential):
    write_data(tmp_path, silica)
    for newton in ("on", "off"):
        code, output = lammps.run(tmp_path, script(tiny_potential, newton, "tiled").replace("neighbor 0.8 bin", "neighbor 0.8 bin\nbalance 1.0 rcb"), 4)
        assert code == 0, output[-2000:]
        assert abs(lammps.thermo(output)[0]["PotEng"][0] - expected[0]) / len(silica) < 1e-9
        assert np.abs(np.loadtxt(tmp_path / "forces.dump", skiprows=9)[:, 1:] - expected[1]).max() < 1e-8


def test_float32_is_close(tmp_path, silica, expected, tiny_potential):
    write_data(tmp_path, silica)
    code, output = lammps.run(tmp_path, script(tiny_potential, style="mace precision float32"), 4)
    assert code == 0, output[-2000:]
    got = np.loadtxt(tmp_path / "forces.dump", skiprows=9)[:, 1:]
    assert 0 < np.abs(got - expected[1]).max() < 1e-4 * np.abs(expected[1]).max()


FAMILY = {  # blocks that exchange more than one array, inputs, pair energies, a third layer
    "attention": dict(interaction="RealAgnosticAttResidualInteractionBlock", num_interactions=3),
    "density_zbl": dict(interaction_first="RealAgnosticDensityInteractionBlock", interaction="RealAgnosticDensityResidualInteractionBlock", distance_transform="Agnesi", pair_repulsion=True),
    "like_omol": dict(interaction_first="RealAgnosticResidualNonLinearInteractionBlock", interaction="RealAgnosticResidualNonLinearInteractionBlock", apply_cutoff=False,
                      readout="NonLinearBiasReadoutBlock", edge_channels=4, edge_max_L=1, use_agnostic_product=True, use_embedding_readout=True, heads=["a", "b"],
                      embeddings=[{"name": "total_charge", "type": "categorical", "per": "graph", "num_classes": 5, "offset": 2, "emb_dim": 6}]),
}


@pytest.mark.parametrize("name", FAMILY)
def test_family_equals_ase(tmp_path, silica, name):
    potential = make_potential(tmp_path / "p.mace", **FAMILY[name])
    write_data(tmp_path, silica)
    omol = name == "like_omol"
    atoms = silica.copy()
    atoms.calc = MACECalculator(potential, head="b" if omol else None, inputs={"total_charge": -1} if omol else None)
    energy, forces = atoms.get_potential_energy(), Prism(atoms.cell.array).vector_to_lammps(atoms.get_forces())
    style = "mace head b input total_charge -1" if omol else "mace"
    scale = max(1, np.abs(forces).max())
    for ranks, kokkos in ((1, None), (4, None), (2, "on")):
        code, output = lammps.run(tmp_path, script(potential, style=style, steps=0), ranks, kokkos)
        assert code == 0, output[-2000:]
        start = lammps.thermo(output)[0]
        assert abs(start["PotEng"][0] - energy) / len(silica) < 1e-9 * scale
        assert np.abs(np.loadtxt(tmp_path / "forces.dump", skiprows=9)[:, 1:] - forces).max() < 1e-8 * scale


@pytest.mark.parametrize("style, sentence", [("mace head b", "needs the input total_charge"), ("mace head b input total_charge", "needs a name and a value"),
                                             ("mace head b input total_charge 0 input field 1", "takes no input field"), ("mace head b input total_charge 9", "this potential knows -2 to 2")])
def test_wrong_inputs_get_a_sentence(tmp_path, silica, style, sentence):
    potential = make_potential(tmp_path / "p.mace", **FAMILY["like_omol"])
    write_data(tmp_path, silica)
    code, output = lammps.run(tmp_path, script(potential, style=style), 2)
    assert code != 0
    assert sentence in output.replace("\n", " "), output[-1500:]


def test_empty_subdomains(tmp_path, tiny_potential):
    """Two atoms far from the other ranks' domains: ranks without atoms must take part in the exchange."""
    atoms = ase.Atoms("OSi", positions=[[1, 1, 1], [2.5, 1.2, 1]], cell=[40, 40, 40], pbc=True)
    write_data(tmp_path, atoms)
    atoms.calc = MACECalculator(tiny_potential)
    code, output = lammps.run(tmp_path, script(tiny_potential), 4)
    assert code == 0, output[-2000:]
    assert abs(lammps.thermo(output)[0]["PotEng"][0] - atoms.get_potential_energy()) < 1e-9


def test_hybrid_with_null(tmp_path, tiny_potential):
    """Half of the atoms belong to another style: MACE sees only its own, lj the rest and the pairs between."""
    atoms = ase.build.bulk("Si", "diamond", a=5.2, cubic=True) * (2, 2, 2)
    atoms.rattle(0.1, seed=3)
    atoms.numbers[::3] = 18
    atoms.wrap()
    write_data(tmp_path, atoms, ["Si", "Ar"])
    coeff = (f"pair_coeff * * mace {tiny_potential} Si NULL\npair_coeff 1 2 lj/cut 0 1\npair_coeff 2 2 lj/cut 0 1")
    silicon = atoms[atoms.numbers == 14]
    silicon.calc = MACECalculator(tiny_potential)
    for ranks, kokkos, mace in ((1, None, "mace"), (2, None, "mace"), (2, "on", "mace"), (2, None, "mace device portable")):
        code, output = lammps.run(tmp_path, script(tiny_potential, style=f"hybrid {mace} lj/cut 4.0", coeff=coeff, steps=0), ranks, kokkos)
        assert code == 0, output[-2000:]
        assert abs(lammps.thermo(output)[0]["PotEng"][0] - silicon.get_potential_energy()) < 1e-8
        got = np.loadtxt(tmp_path / "forces.dump", skiprows=9)[:, 1:]
        assert np.abs(got[atoms.numbers == 14] - silicon.get_forces()).max() < 1e-8
        assert np.abs(got[atoms.numbers == 18]).max() < 1e-12


def test_hybrid_overlay_adds(tmp_path, silica, expected, tiny_potential):
    write_data(tmp_path, silica)
    energies = {}
    for style, coeff in {"zbl 1.0 2.0": "pair_coeff 1 1 8 8\npair_coeff 1 2 8 14\npair_coeff 2 2 14 14",
                         "hybrid/overlay mace zbl 1.0 2.0": f"pair_coeff * * mace {tiny_potential} O Si\npair_coeff 1 1 zbl 8 8\npair_coeff 1 2 zbl 8 14\npair_coeff 2 2 zbl 14 14"}.items():
        code, output = lammps.run(tmp_path, script(tiny_potential, style=style, coeff=coeff, steps=0), 2)
        assert code == 0, output[-2000:]
        energies[style] = lammps.thermo(output)[0]["PotEng"][0]
    zbl, both = energies.values()
    assert abs(both - zbl - expected[0]) / len(silica) < 1e-9


def test_atoms_may_come_and_go(tmp_path, silica, tiny_potential):
    write_data(tmp_path, silica)
    text = script(tiny_potential, steps=0) + "\ngroup few id 1:60\ndelete_atoms group few compress no\nrun 0\n"
    code, output = lammps.run(tmp_path, text, 2)
    assert code == 0, output[-2000:]
    rest = silica[60:]
    rest.calc = MACECalculator(tiny_potential)
    assert abs(lammps.thermo(output)[-1]["PotEng"][0] - rest.get_potential_energy()) < 1e-7


def test_style_may_be_given_twice(tmp_path, silica, expected, tiny_potential):
    write_data(tmp_path, silica)
    text = script(tiny_potential, steps=0) + f"\npair_style mace precision float32\npair_coeff * * {tiny_potential} O Si\nrun 0\npair_style mace\npair_coeff * * {tiny_potential} O Si\nrun 0\n"
    code, output = lammps.run(tmp_path, text, 2)
    assert code == 0, output[-2000:]
    assert abs(lammps.thermo(output)[-1]["PotEng"][0] - expected[0]) / len(silica) < 1e-9


def test_potentials_by_name(tmp_path, silica, expected, tiny_potential, monkeypatch):
    """`name` is name.mace in a folder of LAMMPS_POTENTIALS, a file of the working folder first; the name of one that comes with macekit is there by `make env`."""
    write_data(tmp_path, silica)
    (tmp_path / "here").mkdir()
    shutil.copy(tiny_potential, tmp_path / "here" / "tiny.mace")
    monkeypatch.setenv("LAMMPS_POTENTIALS", f"{tmp_path / 'here'}:{os.environ.get('LAMMPS_POTENTIALS', '')}")
    code, output = lammps.run(tmp_path, script("tiny", steps=0))
    assert code == 0 and abs(lammps.thermo(output)[0]["PotEng"][0] - expected[0]) / len(silica) < 1e-9, output[-2000:]
    code, output = lammps.run(tmp_path, script("", steps=0, style="hybrid/overlay mace zero 5.0", coeff="pair_coeff * * mace silicon NULL Si\npair_coeff * * zero"))
    assert code == 0, output[-2000:]
    code, output = lammps.run(tmp_path, script("silicone", steps=0))
    assert code != 0 and "silicone" in output and "no such" in output.lower().replace("\n", " "), output[-2000:]


MISTAKES = {
    "units": (dict(), ("units metal", "units real"), "use units metal"),
    "keyword": (dict(style="mace precison float64"), None, "did you mean precision?"),
    "value": (dict(style="mace precision"), None, "keyword precision needs a value"),
    "precision": (dict(style="mace precision float16"), None, "unknown precision float16"),
    "head": (dict(style="mace head dft"), None, "no head 'dft'"),
    "file": (dict(coeff="pair_coeff * * absent.mace O Si"), None, "absent.mace: no such file"),
    "kind": (dict(coeff="pair_coeff * * atoms.data O Si"), None, "not a macekit potential"),
    "element": (dict(coeff="pair_coeff * * {potential} O Xe"), None, "does not know element Xe; it knows O, Si"),
    "no_element": (dict(coeff="pair_coeff * * {potential} O Zz"), None, "'Zz' is not a chemical element"),
    "count": (dict(coeff="pair_coeff * * {potential} O"), None, "names 1 elements for 2 atom types"),
    "stars": (dict(coeff="pair_coeff 1 1 {potential} O Si"), None, "Pair_coeff must start with * *"),
    "null": (dict(coeff="pair_coeff * * {potential} NULL NULL"), None, "maps no atom type"),
    "tail": (dict(), ("mass * 20.0", "mass * 20.0\npair_modify tail yes"), "pair_modify tail"),
    "shift": (dict(), ("mass * 20.0", "mass * 20.0\npair_modify shift yes"), "pair_modify shift"),
    "centroid": (dict(), ("stress/atom NULL", "stress/atom NULL\ncompute c all centroid/stress/atom NULL\ncompute c_sum all reduce sum c_c[1]\nfix x all ave/time 1 1 1 c_c_sum"), "centroid"),
    "kokkos_off": (dict(style="mace/kk"), None, "without its Kokkos package"),
    "device": (dict(style="mace device cuda"), None, "device 'cuda' is unknown; use auto, cpu or gpu"),
}


def test_kokkos_on_a_device_refuses_hybrid(tmp_path, silica, tiny_potential):
    write_data(tmp_path, silica)
    coeff = f"pair_coeff * * mace {tiny_potential} O Si\npair_coeff * * zbl 8 8"
    code, output = lammps.run(tmp_path, script(tiny_potential, style="hybrid/overlay mace device portable zbl 1.0 2.0", coeff=coeff), 1, "on")
    assert code != 0
    assert "cannot be part of pair_style hybrid; use pair_style mace there" in output.replace("\n", " "), output[-1500:]


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_get_a_sentence(tmp_path, silica, tiny_potential, name):
    options, replace, sentence = MISTAKES[name]
    write_data(tmp_path, silica)
    options = {k: v.format(potential=tiny_potential) for k, v in options.items()}
    text = script(tiny_potential, **options)
    if replace:
        text = text.replace(*replace)
    for ranks in (1, 2):
        code, output = lammps.run(tmp_path, text, ranks)
        assert code != 0
        assert sentence in output.replace("\n", " "), output[-1500:]
