# SPDX-License-Identifier: MIT
"""What a prepared dataset holds, before anybody trains on it: counts, ranges, and what looks wrong. As a dictionary, text and HTML."""

import collections
import dataclasses
import functools
import html
import os

import numpy as np

from ..pages import COLOR, captioned, figure, listing, page, table
from . import shards as storage
from .prepare import similar
from .pool import pool_of

CHUNK = 4096  # structures at a time, so that [structures, elements] stays small
MOST_LISTED = 20
# Edges of histograms.
FORCE_BINS = np.logspace(-5, 4, 91)       # eV/A
DISTANCE_BINS = np.arange(0, 6.05, 0.05)  # A
# Where a value stops being plausible. Wide on purpose: a warning must be worth reading.
LARGE_FORCE = 50.0      # eV/A
LARGE_STRESS = 1.0      # eV/A^3, 160 GPa
LARGE_COHESION = 20.0   # eV/atom between a frame's energy and its isolated atoms
FAR_ENERGY = 5.0        # eV/atom from the median, and ten times the spread of the others
SHORT_DISTANCE = 0.5    # A; H2 has 0.74
MANY_ZEROS = 0.2        # share of frames whose forces are all zero; perfect crystals have such, too
NET_FORCE = 0.01        # eV/A an atom
COMPOSITION = np.random.default_rng(0).integers(0, 1 << 63, 256, dtype=np.uint64)  # a random number for each element: their sum names a composition


@dataclasses.dataclass
class Summary:
    """What one shard contributes; summaries add up."""

    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    by_type: dict = dataclasses.field(default_factory=dict)        # (head, config_type): Counter of structures, atoms and labels
    elements: dict = dataclasses.field(default_factory=dict)       # Z: [structures, atoms]
    sizes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    neighbors: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    extremes: dict = dataclasses.field(default_factory=dict)       # name: (value, row); the largest value wins
    force_histogram: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(len(FORCE_BINS) - 1, dtype=np.int64))
    distance_histogram: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(len(DISTANCE_BINS) - 1, dtype=np.int64))
    squares: dict = dataclasses.field(default_factory=dict)        # label: sum of squares
    isolated_energies: dict = dataclasses.field(default_factory=dict)  # (head, Z): [energies]
    fits: dict = dataclasses.field(default_factory=dict)           # head: Fit
    lonely: list = dataclasses.field(default_factory=list)         # rows of structures with atoms without neighbours
    fingerprints: list = dataclasses.field(default_factory=list)
    energies: list = dataclasses.field(default_factory=list)       # NaN where absent
    stresses: list = dataclasses.field(default_factory=list)       # [composition, volume per atom, a third of the trace]

    def merge(self, other, first_row):
        self.counts += other.counts
        for name in ("sizes", "neighbors"):
            getattr(self, name).update(getattr(other, name))
        for key, counter in other.by_type.items():
            self.by_type.setdefault(key, collections.Counter()).update(counter)
        for z, pair in other.elements.items():
            mine = self.elements.setdefault(z, [0, 0])
            mine[0], mine[1] = mine[0] + pair[0], mine[1] + pair[1]
        for name, (value, row) in other.extremes.items():
            if name not in self.extremes or value > self.extremes[name][0]:
                self.extremes[name] = (value, row + first_row)
        self.force_histogram += other.force_histogram
        self.distance_histogram += other.distance_histogram
        for name, value in other.squares.items():
            self.squares[name] = self.squares.get(name, 0.0) + value
        for key, values in other.isolated_energies.items():
            self.isolated_energies.setdefault(key, []).extend(values)
        for head, fit in other.fits.items():
            self.fits.setdefault(head, Fit()).merge(fit)
        self.lonely += [row + first_row for row in other.lonely][:MOST_LISTED - len(self.lonely)] if len(self.lonely) < MOST_LISTED else []
        self.fingerprints += other.fingerprints
        self.energies += other.energies
        self.stresses += other.stresses


class Fit:
    """Least squares of the energy per atom on the composition."""

    def __init__(self):
        self.num, self.gram, self.product, self.mean = 0, np.zeros((256, 256)), np.zeros(256), np.zeros(256)
        self.energy = self.energy2 = 0.0

    def add(self, fractions, energies):
        self.num += len(energies)
        self.gram += fractions.T @ fractions
        self.product += fractions.T @ energies
        self.mean += fractions.sum(0)
        self.energy += energies.sum()
        self.energy2 += energies @ energies

    def merge(self, other):
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def solve(self):
        """({Z: E0}, whether the data determine them)"""
        present = np.flatnonzero(self.mean)
        gram = self.gram[np.ix_(present, present)]
        scale = 1 / np.sqrt(np.diag(gram))
        values, vectors = np.linalg.eigh(gram * scale[:, None] * scale)
        safe = values > 1e-10 * values.max()
        x = vectors[:, safe] @ ((vectors[:, safe].T @ (scale * self.product[present])) / values[safe])
        return dict(zip(present.tolist(), (x * scale).tolist())), bool(safe.all())

    def residual(self, energies):
        """(mean, RMS) of energy per atom minus that of the isolated atoms, eV"""
        e0 = np.zeros(256)
        for z, energy in energies.items():
            e0[z] = energy
        mean = (self.energy - self.mean @ e0) / self.num
        square = (self.energy2 - 2 * self.product @ e0 + e0 @ self.gram @ e0) / self.num
        return mean, np.sqrt(max(square, 0.0))


def _fractions(arrays, rows):
    """[rows, 256] of the composition of neighbouring structures: share of each element."""
    begin, end = arrays["first_atom"][rows[0]], arrays["first_atom"][rows[-1] + 1]
    sizes = arrays["num_atoms"][rows]
    index = np.repeat(np.arange(len(rows)), sizes) * 256 + arrays["atomic_numbers"][begin:end]
    return np.bincount(index, minlength=256 * len(rows)).reshape(-1, 256) / sizes[:, None]


def summarise(path):
    """The summary of a shard file."""
    shard = storage.Shard(path)
    summary = Summary()
    a, num = shard.arrays, len(shard)
    if not num:
        return summary
    sizes, edges = a["num_atoms"], a["num_edges"].astype(np.int64)
    absent = np.zeros(num, dtype=np.uint8)
    has = {label: a.get(f"has_{label}", absent) for label in storage.LABELS}
    single = sizes == 1
    summary.counts.update(structures=num, atoms=int(sizes.sum()), edges=int(edges.sum()), isolated_atoms=int(a["num_isolated"][~single].sum()),
                          frames_with_isolated_atoms=int((a["num_isolated"][~single] > 0).sum()), periodic=int((a["pbc"].sum(1) == 3).sum()),
                          molecules=int((a["pbc"].sum(1) == 0).sum()), weighted=int((a["weights"] != 1).any(1).sum()), without_weight=int((a["weights"][:, 0] == 0).sum()),
                          unlabelled=int((sum(h.astype(int) for h in has.values()) == 0).sum()), **{label: int(h.sum()) for label, h in has.items()})
    names = shard.names
    for head, kind in np.unique(np.stack([a["head"], a["config_type"]]), axis=1).T:
        mask = (a["head"] == head) & (a["config_type"] == kind)
        summary.by_type[names["head"][head], names["config_type"][kind]] = collections.Counter(
            structures=int(mask.sum()), atoms=int(sizes[mask].sum()), **{label: int(h[mask].sum()) for label, h in has.items()})
    summary.sizes.update(dict(zip(*(x.tolist() for x in np.unique(sizes, return_counts=True)))))
    summary.neighbors.update(dict(zip(*(x.tolist() for x in np.unique(edges // sizes, return_counts=True)))))
    summary.lonely = np.flatnonzero((a["num_isolated"] > 0) & ~single)[:MOST_LISTED].tolist()
    summary.fingerprints, summary.energies = [a["fingerprint"].copy()], [np.where(has["energy"], a.get("energy", np.zeros(num)), np.nan)]
    finite = np.isfinite(a["shortest"])
    summary.distance_histogram += np.histogram(a["shortest"][finite], DISTANCE_BINS)[0]

    def extreme(name, values, rows=None):
        if len(values):
            k = int(np.argmax(values))
            summary.extremes[name] = (float(values[k]), int(k if rows is None else rows[k]))

    extreme("largest structure", sizes)
    extreme("most edges", edges)
    extreme("shortest distance", -a["shortest"][finite], np.flatnonzero(finite))
    first = a["first_atom"][:-1]
    if "forces" in a:
        length = np.linalg.norm(a["forces"], axis=1)
        labelled = has["forces"].astype(bool)
        summary.force_histogram += np.histogram(length[np.repeat(labelled, sizes)], FORCE_BINS)[0]
        summary.squares["forces"] = float((length ** 2).sum())
        summary.counts["force_atoms"] = int(sizes[labelled].sum())
        largest = np.maximum.reduceat(length, first)
        extreme("force", largest[labelled], np.flatnonzero(labelled))
        extreme("net force an atom", (np.linalg.norm(np.add.reduceat(a["forces"], first), axis=1) / sizes)[labelled], np.flatnonzero(labelled))
        summary.counts["zero_forces"] = int((labelled & (largest == 0) & ~single).sum())
    volume = np.abs(np.linalg.det(a["cell"]))
    if "stress" in a:
        labelled = np.flatnonzero(has["stress"])
        stress = a["stress"][labelled]
        summary.squares["stress"] = float((stress ** 2).sum())
        third = np.trace(stress, axis1=1, axis2=2) / 3
        extreme("stress", np.abs(stress).max((1, 2)), labelled)
        extreme("tension", third, labelled)
        extreme("compression", -third, labelled)
        composition = np.add.reduceat(COMPOSITION[a["atomic_numbers"]], first)
        summary.stresses = [np.stack([composition[labelled].view(np.float64), (volume / sizes)[labelled], third])]
        if "virials" in a:
            both = np.flatnonzero(has["stress"] & has["virials"])
            contradiction = np.abs(a["virials"][both] + volume[both, None, None] * a["stress"][both]).max((1, 2)) > 1e-3 * np.maximum(1, np.abs(a["virials"][both]).max((1, 2)))
            summary.counts["contradictions"] = int(contradiction.sum())
    if "virials" in a:
        labelled = np.flatnonzero(has["virials"])
        extreme("virials", np.abs(a["virials"][labelled]).max((1, 2)), labelled)
    isolated_type = np.array([name == "IsolatedAtom" for name in names["config_type"]], dtype=bool)[a["config_type"]] & single
    summary.counts["isolated_without_forces"] = int((isolated_type & (has["forces"] == 0)).sum())
    for begin in range(0, num, CHUNK):
        rows = np.arange(begin, min(begin + CHUNK, num))
        fractions = _fractions(a, rows)
        for z in np.flatnonzero(fractions.any(0)).tolist():
            pair = summary.elements.setdefault(z, [0, 0])
            pair[0] += int((fractions[:, z] > 0).sum())
            pair[1] += int(np.rint(fractions[:, z] @ sizes[rows]))
        for head in np.unique(a["head"][rows]):
            chosen = (has["energy"][rows] > 0) & (a["head"][rows] == head) & ~isolated_type[rows]
            if chosen.any():
                summary.fits.setdefault(names["head"][head], Fit()).add(fractions[chosen], (a["energy"][rows] / sizes[rows])[chosen])
    for row in np.flatnonzero(isolated_type & (has["energy"] > 0)):
        summary.isolated_energies.setdefault((names["head"][a["head"][row]], int(a["atomic_numbers"][first[row]])), []).append(float(a["energy"][row]))
    return summary


def residuals(path, e0_of_head):
    """[S] energy per atom minus that of the isolated atoms; NaN where there is no energy or the structure is one."""
    shard = storage.Shard(path)
    a = shard.arrays
    result = np.full(len(shard), np.nan)
    if "energy" not in a:
        return result
    for begin in range(0, len(shard), CHUNK):
        rows = np.arange(begin, min(begin + CHUNK, len(shard)))
        fractions = _fractions(a, rows)
        for head, e0 in e0_of_head.items():
            if head in shard.names["head"]:
                chosen = (a["has_energy"][rows] > 0) & (a["head"][rows] == shard.names["head"].index(head))
                result[rows[chosen]] = (a["energy"][rows] / a["num_atoms"][rows] - fractions @ e0)[chosen]
    single = np.array([name == "IsolatedAtom" for name in shard.names["config_type"]], dtype=bool)[a["config_type"]] & (a["num_atoms"] == 1)
    result[single] = np.nan
    return result


def report(folder, jobs=1):
    """Everything about a prepared dataset as a dictionary that JSON can hold; `findings` are sentences about what looks wrong.

    @raises BrokenFile  as `open_shards`; arrays are not verified here
    """
    from ase.data import chemical_symbols

    dataset = storage.open_shards(folder)
    paths = [shard.path for shard in dataset.shards]
    total = Summary()
    with pool_of(jobs if len(dataset) > 20000 else 1) as run:
        for summary, first in zip(run(summarise, paths), dataset.first):
            total.merge(summary, first)
        e0s, determined = _e0s(total)
        vectors = {head: np.array([values.get(z, 0.0) for z in range(256)]) for head, values in e0s.items()}
        cohesion = np.concatenate([np.empty(0), *run(functools.partial(residuals, e0_of_head=vectors), paths)])
    counts, num = total.counts, len(dataset)
    source = dataset.source
    result = {
        "folder": os.path.basename(os.path.abspath(folder)), "r_max": dataset.r_max, "keys": dataset.keys, "units": dataset.header["units"], "files": dataset.header["files"],
        "num_structures": num, "num_atoms": counts["atoms"], "num_edges": counts["edges"], "num_bytes": sum(os.path.getsize(p) for p in paths), "num_shards": len(paths),
        "periodic": {"in three directions": counts["periodic"], "in none": counts["molecules"], "in one or two": num - counts["periodic"] - counts["molecules"]},
        "labels": {label: counts[label] for label in storage.LABELS}, "unlabelled": counts["unlabelled"], "isolated_without_forces": counts["isolated_without_forces"],
        "groups": [{"head": head, "config_type": kind, **{k: c[k] for k in ("structures", "atoms", *storage.LABELS)}} for (head, kind), c in sorted(total.by_type.items())],
        "elements": {chemical_symbols[z]: {"structures": s, "atoms": n} for z, (s, n) in sorted(total.elements.items())},
        "sizes": dict(sorted(total.sizes.items())), "neighbors": dict(sorted(total.neighbors.items())),
        "neighbors_per_atom": counts["edges"] / max(counts["atoms"], 1),
        "extremes": {name: {"value": -value if name in ("shortest distance", "compression") else value, "source": source(row)} for name, (value, row) in total.extremes.items()},
        "forces_rms": np.sqrt(total.squares["forces"] / (3 * counts["force_atoms"])).item() if counts["force_atoms"] else None,
        "stress_rms": np.sqrt(total.squares["stress"] / (9 * counts["stress"])).item() if counts["stress"] else None,
        "force_histogram": total.force_histogram.tolist(), "distance_histogram": total.distance_histogram.tolist(),
        "isolated_atoms": {"atoms": counts["isolated_atoms"], "frames": counts["frames_with_isolated_atoms"], "listed": [source(row) for row in total.lonely]},
        "duplicates": _duplicates(total, source), "skipped": dataset.header["skipped"], "not_stored": dataset.header["not_stored"],
        "unused_stress": dataset.header["unused_stress"], "weighted": counts["weighted"], "split": {k: v for k, v in dataset.header.get("split", {}).items() if k.startswith("num")},
    }
    result["E0"] = _e0_table(total, e0s, determined)
    known = np.flatnonzero(np.isfinite(cohesion))
    if len(known):
        values = cohesion[known]
        low, left, middle, right, high = np.percentile(values, [0.5, 16, 50, 84, 99.5])
        order = known[np.argsort(-np.abs(values - middle))[:5]]
        histogram, edges = np.histogram(values, 60, (low, high) if high > low else None)
        result["energy_per_atom"] = {"mean": values.mean().item(), "std": values.std().item(), "min": values.min().item(), "max": values.max().item(), "median": middle.item(), "spread": ((right - left) / 2).item(),
                                     "histogram": histogram.tolist(), "edges": edges.tolist(), "farthest": [{"value": cohesion[row].item(), "source": source(row)} for row in order]}
    if total.stresses:
        third = np.concatenate([part[2] for part in total.stresses])
        histogram, edges = np.histogram(third, 60, np.percentile(third, [0.5, 99.5]) if len(third) > 1 and third.std() else None)
        result["tension"] = {"histogram": histogram.tolist(), "edges": edges.tolist()}
    result["stress_sign"] = _stress_sign(total)
    result["findings"] = _findings(result, counts)
    return result


def _e0s(total):
    """{head: {Z: E0}} as the trainer's `E0s: auto` has them, isolated atoms first and least squares for the rest; and {head: determined}."""
    heads = {head for head, _ in total.isolated_energies} | set(total.fits)
    e0s, determined = {}, {}
    for head in sorted(heads):
        known = {z: float(np.mean(values)) for (h, z), values in total.isolated_energies.items() if h == head}
        fit, determined[head] = total.fits[head].solve() if head in total.fits else ({}, True)
        if set(fit) <= set(known):
            e0s[head], determined[head] = known, True
        elif not known:
            e0s[head] = fit
        else:  # the rest is fitted to what the known ones leave
            rest = Fit()
            rest.merge(total.fits[head])
            e0 = np.array([known.get(z, 0.0) for z in range(256)])
            rest.product = rest.product - rest.gram @ e0
            for z in known:
                rest.gram[z], rest.gram[:, z], rest.product[z], rest.mean[z] = 0, 0, 0, 0
            fitted, determined[head] = rest.solve()
            e0s[head] = {**fitted, **known}
    return e0s, determined


def _e0_table(total, e0s, determined):
    from ase.data import chemical_symbols

    table = {}
    for head, values in e0s.items():
        isolated = {z: energies for (h, z), energies in total.isolated_energies.items() if h == head}
        table[head] = {"determined": determined[head], "elements": {}}
        for z, e0 in sorted(values.items()):
            energies = isolated.get(z)
            table[head]["elements"][chemical_symbols[z]] = {"energy": e0, "from": "isolated atoms" if energies else "least squares",
                                                            **({"spread": max(energies) - min(energies), "frames": len(energies)} if energies else {})}
        if head in total.fits:
            table[head]["mean_residual"], table[head]["rms_residual"] = (float(x) for x in total.fits[head].residual(values))
    return table


def _duplicates(total, source):
    """Structures that are the same to 1e-6 A, atoms in the same order."""
    if not total.fingerprints:
        return {"structures": 0, "groups": 0, "other_energy": 0, "listed": []}
    prints, energies = np.concatenate(total.fingerprints), np.concatenate(total.energies)
    order = np.argsort(prints, kind="stable")
    same = prints[order][1:] == prints[order][:-1]
    differ = same & (np.abs(energies[order][1:] - energies[order][:-1]) > 1e-6)
    firsts = np.flatnonzero(same & ~np.concatenate([[False], same[:-1]])) if len(same) else np.empty(0, int)
    listed = [[source(int(order[k])), source(int(order[k + 1]))] for k in firsts[:MOST_LISTED]]
    return {"structures": int(same.sum()), "groups": len(firsts), "other_energy": int(differ.sum()), "listed": listed}


def _stress_sign(total):
    """Correlation of stress and volume among frames of the same composition: with positive stress under tension it is positive."""
    if not total.stresses:
        return None
    composition, volume, third = np.concatenate(total.stresses, axis=1)
    composition = np.ascontiguousarray(composition).view(np.uint64)
    order = np.argsort(composition, kind="stable")
    cuts = np.flatnonzero(composition[order][1:] != composition[order][:-1]) + 1
    weights = correlations = 0.0
    for group in np.split(order, cuts):
        v, p = volume[group], third[group]
        if len(group) >= 5 and v.mean() > 0 and v.std() > 0.02 * v.mean() and p.std() > 0:
            weights += len(group)
            correlations += len(group) * float(np.corrcoef(v, p)[0, 1])
    return {"frames": int(weights), "correlation": correlations / weights} if weights else None


def _findings(r, counts):
    """Sentences about what looks wrong."""
    found, num = [], r["num_structures"]
    extremes = r["extremes"]
    if not num:
        return ["The dataset is empty."]
    if r["skipped"]:
        found.append(f"{len(r['skipped'])} frames were dropped; the first: {r['skipped'][0]['reason']}")
    if r["unlabelled"]:
        found.append(f"{r['unlabelled']} frames have none of the labels {', '.join(r['keys'][k] for k in storage.LABELS)}.")
    for label in ("energy", "forces"):
        if not r["labels"][label]:
            near = similar(label, r["not_stored"])
            found.append(f"No frame has the {label} {r['keys'][label]}" + (f"; {near} is there, --{label}-key {near} would read it." if near else "."))
        elif missing := num - r["labels"][label] - (r["isolated_without_forces"] if label == "forces" else 0):
            found.append(f"{missing} of {num} frames lack the {label} {r['keys'][label]}.")
    for label in ("stress", "virials"):
        if not r["labels"][label] and (near := similar({"virials": "virial"}.get(label, label), r["not_stored"])):
            found.append(f"No frame has the {label} {r['keys'][label]}; {near} is there, --{label}-key {near} would read it.")
    periodic = num - r["periodic"]["in none"]
    if 0 < r["labels"]["stress"] < periodic:
        found.append(f"{periodic - r['labels']['stress']} of {periodic} periodic frames lack the stress {r['keys']['stress']}.")
    if r["unused_stress"]:
        found.append(f"{r['unused_stress']} frames have a stress or virials but no periodic direction; these were not stored.")
    d = r["duplicates"]
    if d["structures"]:
        found.append(f"{d['structures']} frames repeat an earlier structure, for example {d['listed'][0][1]} that of {d['listed'][0][0]}"
                     + (f"; {d['other_energy']} of them with another energy." if d["other_energy"] else "."))
    lonely = r["isolated_atoms"]
    if lonely["frames"]:
        found.append(f"{lonely['atoms']} atoms in {lonely['frames']} frames have no neighbour within {r['r_max']} A, for example in {lonely['listed'][0]}.")
    if "shortest distance" in extremes and extremes["shortest distance"]["value"] < SHORT_DISTANCE:
        found.append(f"Two atoms are {extremes['shortest distance']['value']:.3g} A apart in {extremes['shortest distance']['source']}.")
    if "force" in extremes and extremes["force"]["value"] > LARGE_FORCE:
        found.append(f"The largest force is {extremes['force']['value']:.4g} eV/A, in {extremes['force']['source']}.")
    if "net force an atom" in extremes and extremes["net force an atom"]["value"] > NET_FORCE:
        found.append(f"The forces on a frame do not add up to zero: {extremes['net force an atom']['value']:.3g} eV/A an atom in {extremes['net force an atom']['source']}.")
    if counts["zero_forces"] > MANY_ZEROS * r["labels"]["forces"]:
        found.append(f"{counts['zero_forces']} frames of several atoms have forces that are all exactly zero; perhaps they stand for absent labels.")
    if "stress" in extremes and extremes["stress"]["value"] > LARGE_STRESS:
        found.append(f"The largest stress is {extremes['stress']['value']:.4g} eV/A^3 ({160.2176634 * extremes['stress']['value']:.4g} GPa), in {extremes['stress']['source']}; "
                     "is it in GPa or kbar (--stress-unit)?")
    if counts["contradictions"]:
        found.append(f"{counts['contradictions']} frames have virials that are not -volume times their stress; one of the two has another sign or unit.")
    sign = r["stress_sign"]
    if sign and sign["frames"] >= 20 and sign["correlation"] < -0.3:
        found.append("The stress falls when frames of the same composition expand: it seems to be positive under compression. Give --stress-unit with a negative factor.")
    several = len(r["E0"]) > 1
    for head, table in r["E0"].items():
        of = f" of head {head}" if several else ""
        if not table["determined"]:
            found.append(f"The frames{of} do not determine the energies of isolated atoms (elements always come in the same proportions); give E0s or IsolatedAtom frames.")
        isolated = [e for e, x in table["elements"].items() if x["from"] == "isolated atoms"]
        if isolated and len(isolated) == len(table["elements"]) and "mean_residual" in table and abs(table["mean_residual"]) > LARGE_COHESION:
            found.append(f"The energies{of} lie {table['mean_residual']:.4g} eV/atom from those of the isolated atoms on average; were they computed in the same way?")
        if isolated and len(isolated) == len(table["elements"]) and table.get("mean_residual", 0) > 0:
            found.append(f"The structures{of} are less stable than their isolated atoms by {table['mean_residual']:.4g} eV/atom on average; look at the IsolatedAtom energies.")
        for element, x in table["elements"].items():
            if x.get("spread", 0) > 1e-3:
                found.append(f"{x['frames']} IsolatedAtom frames of {element}{of} differ by {x['spread']:.4g} eV; their mean would be taken.")
    e = r.get("energy_per_atom")
    if e and abs(e["farthest"][0]["value"] - e["median"]) > max(FAR_ENERGY, 10 * e["spread"]):
        found.append(f"The energy of {e['farthest'][0]['source']} lies {e['farthest'][0]['value'] - e['median']:.4g} eV/atom from the median.")
    return found


def _table(rows, header):
    cells = [[str(x) for x in row] for row in [header, *rows]]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    return ["  " + "  ".join(cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths))).rstrip() for row in cells]


def _facts(r):
    """(name, text) pairs for text and HTML."""
    sizes = r["sizes"]
    facts = [("structures", f"{r['num_structures']:,}"), ("atoms", f"{r['num_atoms']:,}" + (f" ({min(sizes)} to {max(sizes)} a structure)" if sizes else "")),
             ("neighbours", f"{r['num_edges']:,} directed edges within {r['r_max']:g} A, {r['neighbors_per_atom']:.4g} an atom"),
             ("size", f"{r['num_bytes'] / 1e6:,.1f} MB in {r['num_shards']} shard{'s' if r['num_shards'] > 1 else ''}"), ("periodic", ", ".join(f"{n:,} {k}" for k, n in r["periodic"].items() if n)),
             ("units", f"{r['units']['energy']}, {r['units']['length']}")]
    if r["split"]:
        facts.append(("split", f"{r['split']['num_train']:,} to train, {r['split']['num_valid']:,} to validate"))
    if r["forces_rms"] is not None:
        facts.append(("forces", f"RMS {r['forces_rms']:.4g} eV/A, largest {r['extremes']['force']['value']:.4g} in {r['extremes']['force']['source']}"))
    if r["stress_rms"] is not None:
        facts.append(("stress", f"RMS {r['stress_rms']:.4g} eV/A^3, a third of the trace from {r['extremes']['compression']['value']:.4g} to {r['extremes']['tension']['value']:.4g}"))
    if "shortest distance" in r["extremes"]:
        facts.append(("shortest distance", f"{r['extremes']['shortest distance']['value']:.4g} A in {r['extremes']['shortest distance']['source']}"))
    if "energy_per_atom" in r:
        e = r["energy_per_atom"]
        facts.append(("energy", f"{e['mean']:.4f} +- {e['std']:.3g} eV/atom above the E0s, from {e['min']:.4g} to {e['max']:.4g}"))
    if r["not_stored"]:
        facts.append(("not stored", ", ".join(f"{k} ({n:,} frames)" for k, n in sorted(r["not_stored"].items(), key=lambda x: -x[1])[:12])))
    return facts


def _label_rows(r):
    rows = [(label, r["keys"][label], f"{r['labels'][label]:,}", f"{r['num_structures'] - r['labels'][label]:,}") for label in storage.LABELS]
    return rows, ("label", "key", "frames with it", "without")


def _group_rows(r):
    several = len({g["head"] for g in r["groups"]}) > 1
    rows = [((f"{g['head']}: " if several else "") + g["config_type"], *(f"{g[k]:,}" for k in ("structures", "atoms", *storage.LABELS))) for g in r["groups"][:200]]
    return rows, ("config_type", "structures", "atoms", *storage.LABELS)


def _element_rows(r):
    """Elements with their E0."""
    rows = []
    for element, x in r["elements"].items():
        energies = [f"{t['elements'][element]['energy']:.4f} ({t['elements'][element]['from']})" for t in r["E0"].values() if element in t["elements"]]
        rows.append((element, f"{x['structures']:,}", f"{x['atoms']:,}", ", ".join(energies) or "-"))
    return rows, ("element", "structures", "atoms", "E0, eV" + (f" ({', '.join(r['E0'])})" if len(r["E0"]) > 1 else ""))


def text(r):
    """The report as text."""
    lines = [f"{name:18} {value}" for name, value in _facts(r)]
    for rows in (_label_rows(r), _group_rows(r), _element_rows(r)):
        lines += ["", *_table(*rows)]
    lines += ["", "findings:" if r["findings"] else "findings: none"]
    return "\n".join(lines + [f"  - {sentence}" for sentence in r["findings"]])


def _bars(axis, edges, values):
    axis.stairs(values, edges, fill=True, color=COLOR)
    axis.margins(x=0)
    axis.set_ylim(bottom=0)


def _plots(r):
    """[(title, SVG)]"""
    from matplotlib.ticker import EngFormatter

    plots = []

    def plot(title, label, draw):
        def labelled(axis):
            draw(axis)
            axis.set_xlabel(label)
            axis.set_ylabel("structures" if "forces" not in label else "atoms")
            axis.yaxis.set_major_formatter(EngFormatter(sep=""))

        plots.append((title, figure(labelled)))

    def counted(counter, most=60):
        """A histogram of whole numbers, in bins that are whole too."""
        keys, values = np.array(list(counter), dtype=int), np.array(list(counter.values()))
        step = max(1, -(-(keys.max() - keys.min() + 1) // most))
        edges = np.arange(keys.min(), keys.max() + step + 1, step)
        return edges - 0.5, np.histogram(keys, edges - 0.5, weights=values)[0]

    if r["sizes"]:
        plot("Sizes", "atoms in a structure", lambda axis: _bars(axis, *counted(r["sizes"])))
        plot("Neighbours", f"neighbours of an atom within {r['r_max']:g} Å, mean of a structure", lambda axis: _bars(axis, *counted(r["neighbors"])))

    def cut(edges, histogram):
        nonzero = np.flatnonzero(histogram)
        window = slice(nonzero[0], nonzero[-1] + 1)
        return edges[window.start:window.stop + 1], histogram[window]

    forces, distances = np.array(r["force_histogram"]), np.array(r["distance_histogram"])
    if forces.any():
        def draw(axis):
            axis.set_xscale("log")
            _bars(axis, *cut(FORCE_BINS, forces))
        plot("Forces", "length of forces, eV/Å", draw)
    if "energy_per_atom" in r:
        plot("Energies", "energy above the E0s, eV/atom", lambda axis: _bars(axis, r["energy_per_atom"]["edges"], r["energy_per_atom"]["histogram"]))
    if "tension" in r:
        plot("Stress", "a third of the trace of the stress, eV/Å³", lambda axis: _bars(axis, r["tension"]["edges"], r["tension"]["histogram"]))
    if distances.any():
        plot("Shortest distances", "shortest distance of a structure, Å", lambda axis: _bars(axis, *cut(DISTANCE_BINS, distances)))
    return plots


def to_html(r):
    """The report as one file that needs nothing else."""
    findings = "<ul class=findings>" + "".join(f"<li>{html.escape(x)}</li>" for x in r["findings"]) + "</ul>" if r["findings"] else '<p class="findings good">Nothing looks wrong.</p>'
    facts = "<table class=facts>" + "".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>" for name, value in _facts(r)) + "</table>"
    plots = "".join(captioned(title, svg) for title, svg in _plots(r))
    details = listing("Structures that repeat an earlier one", [f"{b} repeats {a}" for a, b in r["duplicates"]["listed"]])
    details += listing("Frames with atoms without a neighbour", r["isolated_atoms"]["listed"])
    details += listing("Dropped frames", [x["reason"] for x in r["skipped"][:200]])
    if "energy_per_atom" in r:
        details += listing("Energies farthest from the median", [f"{x['value']:.4f} eV/atom: {x['source']}" for x in r["energy_per_atom"]["farthest"]])
    files = ", ".join(f["path"] for f in r["files"][:6]) + (f" and {len(r['files']) - 6} more" if len(r["files"]) > 6 else "")
    return page(f"Data report: {r['folder']}",
                f"<p class=sub>{html.escape(files)}</p>{findings}{facts}<h2>Distributions</h2><div class=plots>{plots}</div>"
                f"<h2>Labels</h2>{table(*_label_rows(r))}<h2>Groups</h2>{table(*_group_rows(r))}<h2>Elements</h2>{table(*_element_rows(r))}<h2>Details</h2>{details or 'Nothing to list.'}")
