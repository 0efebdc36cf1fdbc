# SPDX-License-Identifier: MIT
"""Makes files of every kind for tests/python/test_convert.py, in mace-torch's environment: make_conversion_cases.py FOLDER

For each case NAME.model, NAME.npz (its state dict) and NAME.json (the constructor's arguments).
"""

import copy
import json
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
import e3nn.nn  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from e3nn import o3  # noqa: E402
from e3nn.util import jit  # noqa: E402
from mace import modules  # noqa: E402
from mace.calculators import LAMMPS_MACE  # noqa: E402

torch.set_num_threads(1)
BLOCKS = {
    "R": "RealAgnosticResidualInteractionBlock",
    "A": "RealAgnosticInteractionBlock",
    "DR": "RealAgnosticDensityResidualInteractionBlock",
    "D": "RealAgnosticDensityInteractionBlock",
    "NL": "RealAgnosticResidualNonLinearInteractionBlock",
    "AT": "RealAgnosticAttResidualInteractionBlock",
}
CHARGE = {
    "total_charge": dict(type="categorical", per="graph", num_classes=9, emb_dim=6, offset=4),
    "field": dict(type="continuous", per="node", in_dim=3, emb_dim=5),
}
CASES = {
    "residual": dict(max_ell=2),
    "agnostic": dict(first="A", later="A", cls="MACE", heads=["x", "y", "z"]),
    "density": dict(first="D", later="DR", distance_transform="Agnesi", pair_repulsion=True, num_bessel=5),
    "attention": dict(first="AT", later="AT"),
    "mixed": dict(first="D", later="AT", radial_MLP=[12, 7]),
    "nonlinear": dict(
        first="NL",
        later="NL",
        max_ell=2,
        hidden_irreps="4x0e+4x1o+4x2e",
        num_interactions=3,
        edge_irreps="3x0e+3x1o",
        use_edge_irreps_first=True,
        correlation=2,
        embedding_specs=CHARGE,
        use_embedding_readout=True,
        heads=["a", "b"],
        apply_cutoff=False,
        use_agnostic_product=True,
        readout_cls="NonLinearBiasReadoutBlock",
        use_last_readout_only=True,
    ),
    "edges": dict(edge_irreps="4x0e"),
    "gaussian": dict(radial_type="gaussian", distance_transform="Soft", correlation=2),
    "chebyshev": dict(radial_type="chebyshev", num_interactions=1, edge_irreps="3x0e+3x1o", use_edge_irreps_first=True),
    "tanh": dict(gate="tanh"),
    "abs": dict(gate="abs"),
    "ungated": dict(gate="None"),
    "so3": dict(use_so3=True, hidden_irreps="4x0e+4x1e"),
    "dead": dict(use_so3=True, hidden_irreps="4x0e+4x1o", num_interactions=3),
    "dead_agnostic": dict(first="A", later="A", use_so3=True, hidden_irreps="4x0e+4x1o"),
    "dead_nonlinear": dict(first="NL", later="NL", use_so3=True, hidden_irreps="4x0e+4x1o", keep_last_layer_irreps=True),
    "dead_attention": dict(first="AT", later="AT", use_so3=True, hidden_irreps="4x0e+4x1o"),
    "correlation_1": dict(correlation=1),
    "correlation_4": dict(correlation=4, hidden_irreps="2x0e+2x1o"),
    "kept": dict(keep_last_layer_irreps=True),
    "float32": dict(dtype="float32"),
    "last_only": dict(use_last_readout_only=True, num_interactions=3),
    "bad_correlations": dict(correlation=[2, 3]),
    "bad_pseudoscalars": dict(hidden_irreps="4x0o+4x0e+4x1o"),
    "bad_hole": dict(max_ell=2, hidden_irreps="4x0e+4x2e"),
    "bad_unequal": dict(hidden_irreps="4x0e+2x1o"),
    "bad_axial": dict(hidden_irreps="4x0e+4x1o+4x1e"),
    "bad_dead_hole": dict(use_so3=True, max_ell=2, hidden_irreps="4x0e+4x1o+4x2e"),
}


def build(seed, first="R", later="R", cls="ScaleShiftMACE", heads=("Default",), gate="silu", dtype="float64", **changes):
    torch.set_default_dtype(getattr(torch, dtype))
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    options = dict(
        r_max=4.6,
        num_bessel=8,
        num_polynomial_cutoff=6,
        max_ell=1,
        num_interactions=2,
        hidden_irreps="4x0e+4x1o",
        MLP_irreps="8x0e",
        avg_num_neighbors=7.9,
        atomic_numbers=[1, 8, 14],
        correlation=3,
        radial_type="bessel",
        radial_MLP=[10, 9],
        heads=list(heads),
        use_reduced_cg=False,
    )
    options.update(changes)
    arguments = dict(
        options,
        interaction_cls=modules.interaction_classes[BLOCKS[later]],
        interaction_cls_first=modules.interaction_classes[BLOCKS[first]],
        num_elements=3,
        gate=modules.gate_dict[gate],
        atomic_energies=rng.normal(-50, 20, (len(heads), 3)),
    )
    for name in ("hidden_irreps", "MLP_irreps", "edge_irreps"):
        if name in options:
            arguments[name] = o3.Irreps(options[name])
    if "readout_cls" in options:
        arguments["readout_cls"] = modules.readout_classes[options["readout_cls"]]
    if cls == "ScaleShiftMACE":
        arguments.update(atomic_inter_scale=rng.uniform(0.5, 1.5, len(heads)), atomic_inter_shift=rng.normal(0, 0.2, len(heads)))
    model = getattr(modules, cls)(**arguments)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith((".bias", ".beta")) or ".net." in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    options.update(cls=cls, gate=gate, dtype=dtype, interaction_first=BLOCKS[first], interaction=BLOCKS[later])
    return model, options


def age(model):
    """What files of earlier mace-torch versions lack."""
    for name in (
        "heads",
        "apply_cutoff",
        "use_reduced_cg",
        "use_so3",
        "use_agnostic_product",
        "use_last_readout_only",
        "use_edge_irreps_first",
        "lammps_mliap",
        "edge_irreps",
    ):
        delattr(model, name)
    del model.radial_embedding.apply_cutoff
    model.radial_embedding.cutoff_fn.p = model.radial_embedding.cutoff_fn.p.double()
    model.radial_embedding.bessel_fn.bessel_weights = torch.nn.Parameter(model.radial_embedding.bessel_fn._buffers.pop("bessel_weights"))
    model.atomic_energies_fn.atomic_energies = model.atomic_energies_fn.atomic_energies[0]
    for name in ("scale", "shift"):
        setattr(model.scale_shift, name, getattr(model.scale_shift, name)[0])
    for block in model.interactions:
        for name in ("edge_irreps", "radial_MLP", "cueq_config", "oeq_config"):
            delattr(block, name)
    for product in model.products:
        del product.use_agnostic_product, product.cueq_config
        for contraction in product.symmetric_contractions.contractions:
            for name in [n for n in contraction._buffers if n.endswith("_zeroed")]:
                del contraction._buffers[name]
    for readout in model.readouts:
        if hasattr(readout, "num_heads"):
            del readout.num_heads


def save(folder, name, model, options):
    torch.save(model, folder / f"{name}.model")
    np.savez(folder / f"{name}.npz", **{k: v.detach().numpy() for k, v in model.state_dict().items()})
    (folder / f"{name}.json").write_text(json.dumps(options))


def script(model, path):
    compiled = jit.compile(copy.deepcopy(model))
    torch.jit.save(compiled, path)


def make_cuequivariance(folder):
    try:
        import cuequivariance_torch  # noqa: F401
    except ImportError:
        return
    from mace.calculators.lammps_mliap_mace import LAMMPS_MLIAP_MACE
    from mace.cli.convert_e3nn_cueq import run

    for seed, (name, options) in enumerate({"cue_full": dict(max_ell=2), "cue_reduced": dict(max_ell=2, use_reduced_cg=True, first="D", later="DR")}.items()):
        model, options = build(50 + seed, **options)
        save(folder, name, model, options)
        converted = run(copy.deepcopy(model), device="cpu")
        torch.save(converted, folder / f"{name}_cueq.model")
        torch.save(LAMMPS_MLIAP_MACE(converted), folder / f"{name}-mliap_lammps.pt")


def main():
    folder = Path(sys.argv[1])
    for seed, (name, options) in enumerate(CASES.items()):
        save(folder, name, *build(300 + seed, **options))
    model, options = build(1)
    age(model)
    save(folder, "old", model, options)
    model, options = build(2, first="NL", later="NL")
    for block in model.interactions:
        new = block.equivariant_nonlin
        block.equivariant_nonlin = e3nn.nn.Gate(
            new.irreps_scalars, [torch.nn.functional.silu], new.irreps_gates, [torch.sigmoid] * len(new.irreps_gates), new.irreps_gated
        )
    save(folder, "old_gate", model, options)
    for name in ("agnostic", "tanh", "ungated", "density"):
        model = torch.load(folder / f"{name}.model", weights_only=False)
        torch.set_default_dtype(torch.float64)
        script(model, folder / f"{name}_compiled.pt")
        script(LAMMPS_MACE(model), folder / f"{name}-lammps.pt")
    model, _ = build(3, heads=["p", "q"])
    model.heads = None
    script(model, folder / "nameless_compiled.pt")
    model, _ = build(4)
    torch.save({"model": model.state_dict(), "optimizer": {}, "lr_scheduler": {}}, folder / "checkpoint.pt")
    torch.save(model.state_dict(), folder / "state.pt")
    common = dict(
        r_max=4.6,
        num_bessel=8,
        num_polynomial_cutoff=6,
        max_ell=2,
        num_interactions=2,
        num_elements=2,
        hidden_irreps=o3.Irreps("4x0e+4x1o"),
        MLP_irreps=o3.Irreps("8x0e+8x1o"),
        gate=torch.nn.functional.silu,
        avg_num_neighbors=7.9,
        atomic_numbers=[1, 8],
        correlation=2,
        interaction_cls=modules.interaction_classes[BLOCKS["R"]],
        interaction_cls_first=modules.interaction_classes[BLOCKS["R"]],
    )
    torch.save(modules.AtomicDipolesMACE(**common, atomic_energies=None), folder / "dipoles.model")
    torch.save(modules.EnergyDipolesMACE(**common, atomic_energies=np.zeros(2)), folder / "energy_dipoles.model")
    make_cuequivariance(folder)


main()
