# SPDX-License-Identifier: MIT
"""Error tables: predictions against labels, for each config_type."""

import numpy as np

from ..results import StressOrder

LABELS = ("energy", "forces", "stress", "virials")


SUMS = 4  # numbers, squares and magnitudes of errors, squares of labels
MANY_FRAMES = 10_000  # for a picture


def predictions(engine, model, dataset, frames, batch_size):
    """(frame, energy, forces, stress, virials) for each of `frames`, those of `dataset`; predicted a few batches at a time."""
    piece = max(1, 256 // batch_size) * batch_size
    for first in range(0, len(frames), piece):
        energy, forces, stress, virials = engine.predict(model, dataset, batch_size, first, first + piece)
        row = 0
        for k in range(len(energy)):
            frame = frames[first + k]
            size = len(frame["atomic_numbers"])
            yield frame, energy[k], forces[row:row + size], stress[k], virials[k]
            row += size


class Errors:
    """Sums of the errors of a set for each config_type (`head: config_type` if there are heads), and what pictures show: predictions and labels
    of all frames, or of one in so many.
    """

    def __init__(self):
        self.sums = {}  # {config_type: {label: array of SUMS}}
        self.points = {what: ([], []) for what in LABELS}
        self.stress_orders = {}  # {config_type: StressOrder}

    def add(self, what, kind, predicted, reference, shown):
        predicted, reference = np.ravel(predicted), np.ravel(reference)
        difference = predicted - reference
        sums = self.sums.setdefault(kind, {label: np.zeros(SUMS) for label in LABELS})
        sums[what] += (difference.size, difference @ difference, np.abs(difference).sum(), reference @ reference)
        if shown:
            self.points[what][0].append(predicted)
            self.points[what][1].append(reference)

    def rmse(self, what):
        count, squares = (sum(sums[what][k] for sums in self.sums.values()) for k in (0, 1))
        return (squares / count) ** 0.5


def collect(engine, model, dataset, frames, batch_size, heads=("Default",)):
    """Errors of a model on a set."""
    result, every = Errors(), 1 + len(frames) // MANY_FRAMES
    for number, (frame, energy, forces, stress, virials) in enumerate(predictions(engine, model, dataset, frames, batch_size)):
        size, kind = len(frame["atomic_numbers"]), frame["config_type"]
        _, energy_weight, forces_weight, stress_weight, virials_weight = frame["weights"]
        if len(heads) > 1:
            kind = f"{heads[frame['head']]}: {kind}"
        shown = number % every == 0
        if frame["energy"] is not None and energy_weight > 0:
            result.add("energy", kind, energy / size, frame["energy"] / size, shown)
        if frame["forces"] is not None and forces_weight > 0:
            result.add("forces", kind, forces, frame["forces"], shown)
        if frame["stress"] is not None and stress_weight > 0:
            result.add("stress", kind, stress, frame["stress"], shown)
            result.stress_orders.setdefault(kind, StressOrder()).add(stress, frame["stress"])
        if frame["virials"] is not None and virials_weight > 0:
            result.add("virials", kind, virials / size, frame["virials"] / size, shown)
    return result


def summarise(collected):
    """{config_type: errors} with the heads, if there are some, and `all` last.

    In meV and Angstrom, percent for the relative force error; None without labels.
    """
    kinds = sorted(kind for kind, sums in collected.sums.items() if sums["energy"][0] or sums["forces"][0])
    heads = sorted({kind.partition(": ")[0] for kind in kinds if ": " in kind})
    result = {}
    for kind in [*kinds, *heads, "all"]:
        entry = {}
        chosen = [sums for name, sums in sorted(collected.sums.items()) if kind == "all" or (name.startswith(f"{kind}: ") if kind in heads else name == kind)]
        for what in LABELS:
            count, squares, magnitudes, reference_squares = sum((sums[what] for sums in chosen), np.zeros(SUMS)).tolist()
            entry[f"{what}_rmse"] = 1000 * (squares / count) ** 0.5 if count else None
            entry[f"{what}_mae"] = 1000 * magnitudes / count if count else None
            if what == "forces":
                size = (reference_squares / count) ** 0.5 if count else 0.0
                entry["forces_relative"] = entry["forces_rmse"] / (10 * (size + 1e-9)) if count else None
        entry["frames"] = int(sum(sums["energy"][0] for sums in chosen))
        result[kind] = entry
    return result


def stress_findings(collected):
    """Sentences about labels of the stress that are otherwise read than meant. collected: {set: Errors}."""
    found = ((name, kind, order.finding()) for name, errors in collected.items() for kind, order in errors.stress_orders.items())
    return [f"{name}, {kind}: {finding}." for name, kind, finding in found if finding]


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
