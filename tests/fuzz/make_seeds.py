# SPDX-License-Identifier: MIT
"""Seeds for both fuzzers: make_seeds.py FOLDER [MODEL..]   writes FOLDER/mace/*, FOLDER/model/*; MODELs are files of mace-torch."""

import json
import sys
import zipfile
from pathlib import Path

from macekit import _core
from macekit.mace_torch import write

VARIANTS = {
    "plain": {},
    "layers": dict(num_interactions=3, max_L=1),
    "density": dict(interaction="RealAgnosticDensityResidualInteractionBlock", distance_transform="Agnesi", pair_repulsion=True),
    "nonlinear": dict(
        interaction_first="RealAgnosticResidualNonLinearInteractionBlock",
        interaction="RealAgnosticResidualNonLinearInteractionBlock",
        readout="NonLinearBiasReadoutBlock",
        apply_cutoff=False,
        edge_channels=1,
        edge_max_L=0,
    ),
    "attention": dict(interaction="RealAgnosticAttResidualInteractionBlock", use_last_readout_only=True),
    "gaussian": dict(radial_type="gaussian", distance_transform="Soft", heads=["a", "b"]),
    "charge": dict(
        embeddings=[{"name": "total_charge", "type": "categorical", "per": "graph", "emb_dim": 2, "num_classes": 3, "offset": 1}], use_embedding_readout=True
    ),
}


def main():
    folder = Path(sys.argv[1])
    for kind in ("mace", "model"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for name, changes in VARIANTS.items():
        hp = json.loads(_core.default_hyperparameters())
        hp.update(atomic_numbers=[1], num_channels=1, max_ell=1, max_L=0, correlation=2, radial_MLP=[2], MLP_width=1, num_bessel=2)
        hp.update(changes)
        tensors = _core.initial_tensors(json.dumps(hp), [0.0] * len(hp["heads"]), 1)
        potential = _core.Potential.from_tensors(json.dumps(hp), tensors, json.dumps({"dtype": "float64"}))
        potential.save(str(folder / "mace" / name))
        write.write_model(potential, folder / "model" / name)
        (folder / "model" / name).write_bytes(b"\x00" + (folder / "model" / name).read_bytes())
    for k, path in enumerate(map(Path, sys.argv[2:])):
        with zipfile.ZipFile(path) as container:
            pickle = next(n for n in container.namelist() if n.endswith("/data.pkl"))
            (folder / "model" / path.name).write_bytes(bytes([k + 1]) + container.read(pickle))
    print(f"{len(list((folder / 'mace').iterdir()))} and {len(list((folder / 'model').iterdir()))} seeds")


main()
