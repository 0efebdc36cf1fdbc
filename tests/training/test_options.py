# SPDX-License-Identifier: MIT
"""The options of mace_run_train: docs/coming-from-mace-torch.md says what the code does."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from macekit.training import config, upstream

PAGE = Path(__file__).parents[2] / "docs" / "coming-from-mace-torch.md"


def rows():
    table = PAGE.read_text().split("| mace_run_train | here |")[1]
    return dict(re.match(r"\| `(\w+)` \| (.*) \|$", line).groups() for line in table.splitlines() if line.startswith("| `"))


@pytest.fixture
def yaml_file(tmp_path):
    (tmp_path / "c.yaml").write_text("name: w\ntrain_file: a.extxyz\nfoundation_model: f.mace\npt_train_file: b.extxyz\n")
    (tmp_path / "new.yaml").write_text("name: w\ntrain_file: a.extxyz\n")

    def path(name):
        alone = name not in config.KEYS or config.KEYS[name].group == "Model" or name == "E0s"
        return str(tmp_path / ("new.yaml" if alone else "c.yaml"))

    return path


def test_the_page_has_the_table_of_the_code():
    assert upstream.table() in PAGE.read_text()
    assert len(rows()) == len(upstream.options()) > 165


# A value other than the default for every kind of key.
OTHER = {"int": "7", "float": "0.5", "bool": "true", "list": "[3, 4]", "mapping": "{a: 2.0}", "path": "x/y.extxyz"}
SPECIAL = {
    "E0s": "average", "heads": None, "freeze": "5", "embedding_specs": "{total_spin: {type: categorical, per: graph, num_classes: 5, emb_dim: 8}}",
    "hidden_irreps": "16x0e + 16x1o", "edge_irreps": "8x0e + 8x1o", "MLP_irreps": "8x0e", "interaction_first": config.BLOCKS[2], "interaction": config.BLOCKS[5],
    "lr_params_factors": "{readouts_lr_factor: 2.0}", "use_embedding_readout": "false", "foundation_model": "other.model", "lr_factor": "0.5", "max_L": "2",
    "multiheads_finetuning": "true", "ema": "true",
}


@pytest.mark.parametrize("name", sorted(n for n in rows() if n in upstream.SAME or n in upstream.RENAMED))
def test_options_that_are_the_same(yaml_file, name):
    key = config.KEYS[upstream.RENAMED.get(name, name)]
    assert rows()[name] == (f"= `{key.name}`" if name in upstream.RENAMED else upstream.DIFFERENCES.get(name, "the same"))
    if key.name == "heads":
        pytest.skip("test_heads.py")
    value = SPECIAL.get(key.name) or (key.choices[-1] if key.choices else OTHER.get(key.kind, "other"))
    loaded = config.load(yaml_file(key.name), [(name, value)])
    expected = config._convert(key, __import__("yaml").safe_load(value), "test")
    assert loaded[key.name] == expected


@pytest.mark.parametrize("name", sorted(n for n in rows() if n in upstream.ONLY))
def test_options_that_have_one_value(yaml_file, name):
    values, why = upstream.ONLY[name]
    for value in values:
        config.load(yaml_file(name), [(name, value)])
    if name in upstream.MEANS:
        assert rows()[name] == upstream.MEANS[name]
        return
    assert rows()[name].endswith(why) and why
    with pytest.raises(config.ConfigError, match="is not available here") as error:
        config.load(yaml_file(name), [(name, "something else")])
    assert why in str(error.value) and name in str(error.value)


@pytest.mark.parametrize("name", sorted(upstream.NO_EFFECT))
def test_options_without_effect_are_named(yaml_file, name):
    loaded = config.load(yaml_file(name), [(name, "3")])
    assert name not in loaded and any(name in note and upstream.NO_EFFECT[name] in note for note in loaded.notes)


def test_no_option_is_missing():
    """Against mace-torch's own parser, where its environment is there."""
    python = os.environ.get("MACEKIT_PEER_PYTHON")
    if not python:
        pytest.skip("mace-torch's environment is not there")
    code = "from mace.tools import build_default_arg_parser as b\nprint(*(s for a in b()._actions for s in a.option_strings if s.startswith('--')))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, env=os.environ | {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}, check=True)
    theirs = {word[2:] for word in done.stdout.split() if word.startswith("--")} - {"config", "help"}
    assert theirs - set(upstream.options()) == set()


@pytest.mark.parametrize("options, sentence", [
    ((("loss", "dipole"),), "trains dipoles, which macekit's models do not have"), ((("loss", "ef"),), "is weighted with energy_weight and forces_weight 1"),
    ((("hidden_irreps", "16x0e + 8x1o"),), "must have equal numbers of channels"), ((("hidden_irreps", "16x0e + 16x1e"),), "must name 0e, 1o, 2e in this order"),
    ((("hidden_irreps", "16x0e"), ("max_L", "1")), "max_L = 1 contradicts hidden_irreps"), ((("interaction_first", config.BLOCKS[1]),), "choose model: ScaleShiftMACE"),
    ((("embedding_specs", "{q: {type: categorical, per: graph}}"),), "q needs emb_dim"), ((("embedding_specs", "{q: {type: other}}"),), "categorical or continuous"),
    ((("use_embedding_readout", "true"),), "needs embedding_specs"), ((("optimizer", "schedulefree"), ("ema", "true")), "averages the weights by itself"),
    ((("use_so3", "true"),), "trains none anew"), ((("model", "PolarMACE"),), "model = PolarMACE is unknown"), ((("radial_type", "besel"),), "did you mean bessel"),
    ((("lr_params_factors", "{readout: 2.0}"),), "readout is unknown; known: embedding_lr_factor"), ((("pt_train_file", "x"),), "needs a foundation_model"),
    ((("distributed", "true"),), "macekit trains in one process"), ((("beta", "1.5"),), "beta must lie between 0 and 1"),
])
def test_values_that_cannot_be(yaml_file, options, sentence):
    with pytest.raises(config.ConfigError) as error:
        config.load(yaml_file("model"), options)
    assert sentence in str(error.value)
