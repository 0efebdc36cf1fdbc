# SPDX-License-Identifier: MIT
"""Every variant of the family trains: from the keys of the configuration to a file, and with the right gradient."""

import json

import numpy as np
import pytest
from training_support import core  # noqa: F401
from training_support import water

BLOCK = "RealAgnostic{}InteractionBlock"
SPECS = """
  total_charge: {type: categorical, per: graph, num_classes: 5, offset: 2, emb_dim: 4}
  total_spin: {type: continuous, per: graph, in_dim: 1, emb_dim: 3, key: spin}
  site: {type: categorical, per: node, num_classes: 3, emb_dim: 2}
"""
VARIANTS = {
    "density": {"interaction_first": BLOCK.format("Density"), "interaction": BLOCK.format("DensityResidual")},
    "density residual": {"model": "ScaleShiftMACE", "interaction_first": BLOCK.format("DensityResidual"), "interaction": BLOCK.format("Density")},
    "attention": {"interaction": BLOCK.format("AttResidual")},
    "non-linear": {"model": "ScaleShiftMACE", "interaction_first": BLOCK.format("ResidualNonLinear"), "interaction": BLOCK.format("ResidualNonLinear"),
                   "readout": "NonLinearBiasReadoutBlock"},
    "radial": {"radial_type": "gaussian", "distance_transform": "Soft", "apply_cutoff": "false"},
    "chebyshev": {"radial_type": "chebyshev", "distance_transform": "Agnesi", "pair_repulsion": "true"},
    "edges": {"edge_irreps": "2x0e + 2x1o", "use_edge_irreps_first": "true", "max_L": "1", "max_ell": "2"},
    "products": {"use_agnostic_product": "true", "use_last_readout_only": "true", "use_reduced_cg": "true"},
    "correlation 4": {"correlation": "4"}, "tanh": {"gate": "tanh"}, "abs": {"gate": "abs"}, "no gate": {"gate": "None"},
    "inputs": {"embedding_specs": SPECS, "use_embedding_readout": "true"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import ase.io

    place = tmp_path_factory.mktemp("variants")
    frames = [water(k) for k in range(8)]
    for k, atoms in enumerate(frames):
        atoms.info |= {"total_charge": k % 3 - 1, "spin": 1 + k % 2}
        atoms.arrays["site"] = np.arange(len(atoms)) % 3
    ase.io.write(place / "train.extxyz", frames, format="extxyz")
    return place


def configuration(folder, changes, **more):
    keys = {"name": "v", "work_dir": str(folder / "out"), "train_file": str(folder / "train.extxyz"), "valid_fraction": "0.25", "r_max": "3.5", "num_channels": "4",
            "max_L": "1", "max_ell": "1", "correlation": "2", "num_interactions": "2", "radial_MLP": "[6]", "MLP_irreps": "4x0e", "num_radial_basis": "4",
            "batch_size": "3", "max_num_epochs": "1", "restart": "no", "plot": "false", "loss": "stress"} | changes | more
    if "embedding_specs" in keys:
        keys["embedding_specs"] = "{" + ", ".join(SPECS.strip().split("\n")) + "}"
    return [part for key, value in keys.items() for part in (f"--{key}", value)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_from_keys_to_a_file(core, folder, variant, capsys):
    from macekit.training.run import run

    assert run(configuration(folder, VARIANTS[variant])) == 0, capsys.readouterr().err
    hyper = json.loads(core.Model.load(str(folder / "out" / "v.mace"), "float64").hyperparameters)
    for key, value in VARIANTS[variant].items():
        if key in hyper and key != "model":
            assert str(hyper[key]).lower() == value.lower(), key
    assert len(hyper["embeddings"]) == (3 if variant == "inputs" else 0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_is_the_derivative(core, folder, variant):
    from macekit.training import config as configuration_of
    from macekit.training import data as reader

    arguments = configuration(folder, VARIANTS[variant])
    config = configuration_of.load(None, configuration_of.parse_arguments(arguments)[1])
    inputs = [(e["name"], e["per"], {"total_spin": "spin"}.get(e["name"], e["name"])) for e in configuration_of.embeddings(config)]
    frames = reader.read(config["train_file"], config, [], inputs)
    data = reader.make_dataset(core, frames, [1, 8], 3.5)
    model = core.Model.new(configuration_of.hyperparameters(config, [1, 8], ["Default"], 6.0), [-1.0, -2.0], [0.7], [0.1], 3, "float64")
    trainer = core.Trainer(model, data, data, json.dumps({"loss": "stress"}))
    _, gradient = trainer.gradient([0, 1, 2])
    start, rng, h = model.parameters(), np.random.default_rng(1), 1e-6
    for name in start:  # each tensor on its own: a wrong one cannot hide behind a large one
        direction, values = rng.normal(size=start[name].shape), []
        for sign in (1, -1):
            model.set_parameters(start | {name: start[name] + sign * h * direction})
            values.append(trainer.gradient([0, 1, 2])[0])
        slope, scale = (gradient[name] * direction).sum(), np.abs(gradient[name]).max() * np.sqrt(direction.size)
        assert (values[0] - values[1]) / (2 * h) == pytest.approx(slope, abs=1e-5 * scale + 1e-9 * abs(values[0]) / h), name


def test_a_missing_input_is_named(core, folder, tmp_path, capsys):
    import ase.io
    from macekit.training.run import run

    frames = ase.io.read(folder / "train.extxyz", ":")
    del frames[3].info["total_charge"]
    ase.io.write(tmp_path / "train.extxyz", frames, format="extxyz")
    assert run(configuration(tmp_path, VARIANTS["inputs"])) == 2
    assert "frame 3: the info entry total_charge is missing, which the potential takes as its input total_charge" in capsys.readouterr().err


@pytest.mark.parametrize("variant", ["density", "non-linear", "attention", "edges", "products", "inputs"])
def test_low_rank_fits_every_variant(core, folder, variant):
    """The matrices of LoRA cover the weights exactly; a mistake in a shape is an error."""
    from macekit.training import config as configuration_of

    config = configuration_of.load(None, configuration_of.parse_arguments(configuration(folder, VARIANTS[variant]))[1])
    model = core.Model.new(configuration_of.hyperparameters(config, [1, 8], ["a", "b"], 6.0), [-1.0, -2.0] * 2, [0.7] * 2, [0.1] * 2, 3, "float64")
    base = model.parameters()
    model.add_low_rank(2, 1.0, 5)
    assert all(np.array_equal(base[name], value) for name, value in model.parameters().items())
    assert 0 < model.num_trained
