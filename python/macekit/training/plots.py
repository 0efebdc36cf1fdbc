# SPDX-License-Identifier: MIT
"""Pictures of a training: the curve and the parity plots."""

import numpy as np

from .progress import read_log


def _pyplot():
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    return Figure


def validations(path):
    """Validation records of a log, by epoch; where a restart repeated an epoch, the later record counts."""
    epochs = {}
    for record in read_log(path):
        if record.get("kind") == "start":
            epochs = {}
        if record.get("kind") == "validation" and record["epoch"] >= 0:
            epochs[record["epoch"]] = record
    return [epochs[e] for e in sorted(epochs)]


def curve(log, path, stage_two_epoch=None):
    """Loss and validation errors against the epoch."""
    records = validations(log)
    if not records:
        return False
    epoch = np.array([r["epoch"] + 1 for r in records])
    figure = _pyplot()(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epoch, [r["loss"] for r in records], label="training")
    left.plot(epoch, [r["errors"]["loss"] for r in records], label="validation")
    left.set(xlabel="epoch", ylabel="loss", yscale="log")
    left.legend(frameon=False)
    right.plot(epoch, [1000 * r["errors"]["energy_rmse"] for r in records], label="energy, meV/atom")
    right.plot(epoch, [1000 * r["errors"]["forces_rmse"] for r in records], label="forces, meV/A")
    if any(r["errors"]["stress_rmse"] > 0 for r in records):
        right.plot(epoch, [1000 * r["errors"]["stress_rmse"] for r in records], label="stress, meV/A$^3$")
    right.set(xlabel="epoch", ylabel="validation RMSE", yscale="log")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if stage_two_epoch is not None:
            axes.axvline(stage_two_epoch, color="grey", linestyle="--", linewidth=1)
    figure.savefig(path, dpi=150)
    return True


def parity(errors, path, title):
    """Predictions against labels, one panel for each kind of label that exists."""
    panels = [(what, unit) for what, unit in (("energy", "eV/atom"), ("forces", "eV/A"), ("stress", "eV/A$^3$")) if errors.points[what][0]]
    if not panels:
        return False
    figure = _pyplot()(figsize=(3.6 * len(panels), 3.6), layout="constrained")
    for axes, (what, unit) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels):
        y, x = (np.concatenate(pieces) for pieces in errors.points[what])
        low, high = min(x.min(), y.min()), max(x.max(), y.max())
        axes.plot([low, high], [low, high], color="grey", linewidth=0.8)
        axes.plot(x, y, ".", markersize=3, alpha=0.5, rasterized=True)
        rmse = 1000 * errors.rmse(what)
        axes.set(xlabel=f"reference {what}, {unit}", ylabel=f"predicted {what}, {unit}", title=f"{title}: RMSE {rmse:.3g} m{unit}", aspect="equal")
        axes.title.set_size("medium")
    figure.savefig(path, dpi=150)
    return True
