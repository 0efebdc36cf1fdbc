# SPDX-License-Identifier: MIT
"""Error tables: predictions against labels, for each config_type."""

import numpy as np


LABELS = ("energy", "forces", "stress", "virials")


def collect(engine, model, dataset, frames, batch_size, heads=("Default",)):
    """Labels and predictions of a set: a dict of arrays, `*_ref` and `*`, with the config_type of each entry (`head: config_type` if there are heads)."""
    energy, forces, stress, virials = engine.predict(model, dataset, batch_size)
    columns = {f"{what}{suffix}": [] for what in LABELS for suffix in ("", "_ref", "_type")}
    row = 0
    for k, frame in enumerate(frames):
        size, kind = len(frame["atomic_numbers"]), frame["config_type"]
        _, energy_weight, forces_weight, stress_weight, virials_weight = frame["weights"]
        if len(heads) > 1:
            kind = f"{heads[frame['head']]}: {kind}"
        if frame["energy"] is not None and energy_weight > 0:
            _append(columns, "energy", [energy[k] / size], [frame["energy"] / size], kind)
        if frame["forces"] is not None and forces_weight > 0:
            _append(columns, "forces", forces[row:row + size].ravel(), np.asarray(frame["forces"]).ravel(), kind)
        if frame["stress"] is not None and stress_weight > 0:
            _append(columns, "stress", stress[k].ravel(), np.asarray(frame["stress"]).ravel(), kind)
        if frame["virials"] is not None and virials_weight > 0:
            _append(columns, "virials", virials[k].ravel() / size, np.asarray(frame["virials"]).ravel() / size, kind)
        row += size
    return {key: np.concatenate(parts) if parts else np.zeros(0) for key, parts in columns.items()}


def _append(columns, what, values, reference, kind):
    columns[what].append(np.asarray(values))
    columns[f"{what}_ref"].append(np.asarray(reference))
    columns[f"{what}_type"].append(np.full(len(reference), kind, dtype=object))


def summarise(collected):
    """{config_type: errors} with the heads, if there are some, and `all` last.

    In meV and Angstrom, percent for the relative force error; None without labels.
    """
    kinds = sorted(set(collected["energy_type"]) | set(collected["forces_type"]))
    heads = sorted({kind.partition(": ")[0] for kind in kinds if ": " in kind})
    result = {}
    for kind in [*kinds, *heads, "all"]:
        entry = {}

        def chosen(what):
            types = collected[f"{what}_type"]
            if kind in heads:
                return np.array([t.startswith(f"{kind}: ") for t in types], bool)
            return np.ones(len(types), bool) if kind == "all" else types == kind

        for what in LABELS:
            mask = chosen(what)
            reference = collected[f"{what}_ref"][mask]
            difference = collected[what][mask] - reference
            entry[f"{what}_rmse"] = 1000 * float(np.sqrt(np.mean(difference**2))) if difference.size else None
            entry[f"{what}_mae"] = 1000 * float(np.mean(np.abs(difference))) if difference.size else None
            if what == "forces":
                size = float(np.sqrt(np.mean(reference**2))) if reference.size else 0.0
                entry["forces_relative"] = entry["forces_rmse"] / (10 * (size + 1e-9)) if difference.size else None
        entry["frames"] = int(np.sum(chosen("energy")))
        result[kind] = entry
    return result


def table(summaries, measure="rmse"):
    """The error table as a rich table. `summaries` maps the name of a set to `summarise`'s result; measure: rmse or mae."""
    import rich.box
    import rich.table

    result = rich.table.Table(title=measure.upper(), box=rich.box.SIMPLE_HEAD)
    with_stress, with_virials = (any(e[f"{what}_rmse"] is not None for s in summaries.values() for e in s.values()) for what in ("stress", "virials"))
    result.add_column("set", no_wrap=True)
    result.add_column("config_type")
    for name in ("E meV/atom", "F meV/A", "relative F %") + (("stress meV/A^3",) if with_stress else ()) + (("virials meV/atom",) if with_virials else ()):
        result.add_column(name, justify="right", no_wrap=True)
    for set_name, summary in summaries.items():
        for kind, e in summary.items():
            if kind == "all" and len(summary) == 2:
                continue
            numbers = [e[f"energy_{measure}"], e[f"forces_{measure}"], e["forces_relative"]]
            numbers += ([e[f"stress_{measure}"]] if with_stress else []) + ([e[f"virials_{measure}"]] if with_virials else [])
            result.add_row(set_name, kind, *("-" if x is None else f"{x:.3f}" for x in numbers))
    return result
