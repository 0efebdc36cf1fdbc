# SPDX-License-Identifier: MIT
"""The files of a screening for people: a table, the structures, and a page that is sorted by a click."""

from __future__ import annotations

import csv
import html
import io
import os

import numpy as np

from ..pages import COLOR, captioned, figure, page
from .store import write_file
from .verbs import VERBS, Column

MOST_FIGURES = 60  # structures with a figure of their own
HIGH_UNCERTAINTY = 3  # times the mean of the calibration set
_STYLE = """
body{max-width:75rem}th{cursor:pointer;user-select:none}th:hover{color:#1b1f23}th.up::after{content:" \\25B2"}th.down::after{content:" \\25BC"}
tr.failed td{color:#a33}tr.warned td:nth-child(3){color:#a06a00}.number{text-align:right}td:nth-child(2),th:nth-child(2),td:nth-child(3),th:nth-child(3){text-align:left}.plots svg{width:23rem}
.cards{display:flex;flex-wrap:wrap;gap:1.2rem}.cards figure{width:23rem}.cards svg{width:23rem}
"""
# A click on a head sorts by that column, a second one the other way round.
_SCRIPT = """
document.querySelectorAll("table.sortable th").forEach((head,column)=>head.onclick=()=>{const body=head.closest("table").tBodies[0],down=head.classList.contains("up");
head.parentNode.querySelectorAll("th").forEach(h=>h.classList.remove("up","down"));head.classList.add(down?"down":"up");
const key=row=>{const t=row.cells[column].dataset.value??row.cells[column].textContent,n=parseFloat(t);return isNaN(n)?t:n};
[...body.rows].sort((a,b)=>{const x=key(a),y=key(b),o=x===""?1:y===""?-1:typeof x===typeof y?(x<y?-1:x>y?1:0):typeof x==="number"?-1:1;return down&&x!==""&&y!==""?-o:o}).forEach(r=>body.append(r))})
"""


def write_results(folder, verb: str, lines):
    """results.csv, structures.extxyz, trajectories/INDEX.extxyz (of md and neb) and report.html, from the lines of screen()."""
    from ..cli.eval import write_frames

    write_file(os.path.join(folder, "results.csv"), to_csv(lines))
    structures = [structure_of(line) for line in lines if line["status"] != "failed" and "atoms" in line["result"]]
    if structures:
        write_frames(os.path.join(folder, "structures.extxyz"), structures)
    for line in lines:
        frames = trajectory_of(line)
        if frames:
            os.makedirs(os.path.join(folder, "trajectories"), exist_ok=True)
            write_frames(os.path.join(folder, "trajectories", f"{line['index']}.extxyz"), frames)
    write_file(os.path.join(folder, "report.html"), to_html(verb, lines))


def structure_of(line):
    """The final structure, with its numbers in info."""
    atoms = line["result"]["atoms"].copy()
    atoms.info = {"name": line["name"], "status": line["status"]} | line["numbers"]
    return atoms


def trajectory_of(line) -> list:
    """The structures of dynamics, with time (ps) and energy (eV) in info, or of a path, with coordinate (A) and energy above its first; none for other verbs."""
    result, frames = line.get("result", {}), []
    if "trajectory" in result:
        frames = [(atoms, {"time": t, "macekit_energy": e}) for atoms, t, e in zip(result["trajectory"], result["time"], result["energy"])]
    elif "images" in result:
        frames = [(atoms, {"coordinate": x, "relative_energy": e}) for atoms, x, e in zip(result["images"], result["coordinate"], result["energies"])]
    said = []
    for atoms, numbers in frames:
        atoms = atoms.copy()
        atoms.info = {"name": line["name"]} | {key: float(value) for key, value in numbers.items()}
        said.append(atoms)
    return said


def to_csv(lines) -> str:
    names = list(dict.fromkeys(name for line in lines for name in line.get("numbers", {})))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["name", "status", *names, "seconds", "reason"])
    for line in lines:
        numbers = line.get("numbers", {})
        writer.writerow([line["name"], line["status"], *(numbers.get(name, "") for name in names), f"{line['seconds']:.3f}" if "seconds" in line else "", line.get("reason", "")])
    return out.getvalue()


def flags_of(line) -> list:
    """What a reader should look at."""
    numbers, found = line.get("numbers", {}), []
    if line["status"] == "failed":
        return [line["reason"]]
    if line["status"] == "not converged":
        found.append("not converged")
    if numbers.get("uncertain"):
        found.append(f"potentials differ by {numbers['force_deviation']:.2g} eV/A")
    if numbers.get("times_usual", 0) > HIGH_UNCERTAINTY:
        found.append(f"uncertainty {numbers['times_usual']:.1f} times the usual")
    if numbers.get("stable") is False:
        found.append("unstable")
    return found


def to_html(verb: str, lines) -> str:
    columns = [c for c in VERBS[verb].columns if any(c.key in line.get("numbers", {}) for line in lines)]
    if any("force_deviation" in line.get("numbers", {}) for line in lines):
        columns.append(Column("force_deviation", "deviation of potentials, eV/Å", 3))
    if any("uncertainty" in line.get("numbers", {}) for line in lines):
        columns.append(Column("uncertainty", "uncertainty, eV/atom", 4))
    head = "".join(f"<th>{html.escape(x)}</th>" for x in ["structure", "formula", "look at", *(c.head for c in columns)])
    rows = []
    for line in lines:
        numbers, flags = line.get("numbers", {}), flags_of(line)
        kind = "failed" if line["status"] == "failed" else "warned" if flags else ""
        cells = [f"<td>{html.escape(line['name'])}</td><td>{html.escape(numbers.get('formula', ''))}</td><td>{html.escape('; '.join(flags))}</td>"]
        for c in columns:
            value = numbers.get(c.key)
            cells.append("<td data-value=''></td>" if value is None else f"<td data-value='{value!r}'>{round(value, c.digits) + 0.0:.{c.digits}f}</td>")  # + 0.0: no -0
        rows.append(f"<tr class='{kind}'>{''.join(cells)}</tr>")
    done, flagged = sum(line["status"] == "done" for line in lines), sum(bool(flags_of(line)) for line in lines)
    summary = (f"<p class='findings good'>{'The structure is' if len(lines) == 1 else f'All {len(lines)} structures are'} done.</p>" if done == len(lines) and not flagged else
               f"<p class=findings style='padding-left:1rem'>{done} of {len(lines)} structures are done; {flagged} need{'s' if flagged == 1 else ''} a look.</p>")
    overview = "".join(captioned(title, svg) for title, svg in _overview(columns, lines))
    cards = "".join(captioned(line["name"], figure(draw)) for line in [x for x in lines if "result" in x][:MOST_FIGURES] if (draw := _drawing(verb, line["result"])))
    body = f"{summary}<div class=plots>{overview}</div><h2>Structures</h2><table class=sortable><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    if cards:
        body += f"<h2>One by one</h2><div class=cards>{cards}</div>"
    return page(f"Screening: {VERBS[verb].about}", f"{body}<script>{_SCRIPT}</script>", _STYLE)


def _overview(columns, lines):
    for c in columns[:3]:
        values = np.array([line["numbers"][c.key] for line in lines if c.key in line.get("numbers", {})], dtype=float)
        if len(values) < 5 or np.ptp(values) < 1e-12:
            continue

        def draw(axis, values=values, c=c):
            axis.hist(values, bins=min(30, max(5, len(values) // 3)), color=COLOR)
            axis.set_xlabel(c.head)
            axis.set_ylabel("structures")
            axis.yaxis.get_major_locator().set_params(integer=True)
            axis.xaxis.get_major_locator().set_params(nbins=5)

        yield c.head.split(",")[0], figure(draw)


def _drawing(verb, r):
    """draw(axis) for one result, or None where a table says enough."""
    if verb == "eos":
        def draw(axis):
            from ase.eos import EquationOfState

            n = len(r["atoms"])
            fit = EquationOfState(r["volumes"], r["energies"], "birchmurnaghan")
            fit.fit(warn=False)
            v = np.linspace(min(r["volumes"]), max(r["volumes"]), 100)
            axis.plot(v / n, fit.func(v, *fit.eos_parameters) / n, color=COLOR, lw=1)
            axis.plot(np.array(r["volumes"]) / n, np.array(r["energies"]) / n, "o", color=COLOR, ms=3.5)
            axis.set(xlabel="volume, Å³/atom", ylabel="energy, eV/atom")
        return draw
    if verb == "elastic":
        def draw(axis):
            C = np.asarray(r["C"])
            axis.imshow(np.sign(C) * np.sqrt(np.abs(C)), cmap="RdBu_r", vmin=-np.sqrt(np.abs(C).max()), vmax=np.sqrt(np.abs(C).max()))
            for i in range(6):
                for j in range(6):
                    axis.text(j, i, f"{round(C[i, j]) + 0:d}", ha="center", va="center", fontsize=7, color="white" if abs(C[i, j]) > 0.55 * np.abs(C).max() else "black")
            names = ["xx", "yy", "zz", "yz", "xz", "xy"]
            axis.set(xticks=range(6), yticks=range(6), xticklabels=names, yticklabels=names, xlabel="elastic constants, GPa")
            axis.tick_params(length=0)
        return draw
    if verb == "phonon" and "bands" in r:
        def draw(axis):
            bands, ticks, names = r["bands"], [0.0], []
            labels = iter(bands["labels"])
            joined = False  # a segment that is joined to the one before shares its label
            for distance, frequency, goes_on in zip(bands["distances"], bands["frequencies"], bands["connections"]):
                axis.plot(distance, frequency, color=COLOR, lw=0.8)
                if not joined:
                    start = next(labels, "")
                    names = [start] if not names else [*names[:-1], f"{names[-1]}|{start}"]
                names.append(next(labels, ""))
                ticks.append(distance[-1])
                joined = goes_on
            for tick in ticks:
                axis.axvline(tick, color="0.8", lw=0.6, zorder=0)
            axis.axhline(0, color="0.6", lw=0.6, zorder=0)
            axis.set(xticks=ticks, xticklabels=[n.replace("G", "Γ") for n in names], ylabel="frequency, THz")
            axis.margins(x=0)
            axis.tick_params(axis="x", length=0)
        return draw
    if verb == "neb":
        def draw(axis):
            axis.plot(r["coordinate"], r["energies"], "-o", color=COLOR, ms=3.5, lw=1)
            axis.set(xlabel="path, Å", ylabel="energy, eV")
        return draw
    if verb == "md":
        def draw(axis):
            n = len(r["atoms"])
            axis.plot(r["time"], (np.asarray(r["energy"]) - r["energy"][0]) / n, color=COLOR, lw=1, label="potential")
            axis.plot(r["time"], (np.asarray(r["total_energy"]) - r["total_energy"][0]) / n, color="0.5", lw=1, label="total")
            axis.legend(frameon=False, fontsize=8)
            axis.xaxis.get_major_locator().set_params(nbins=5)
            axis.set(xlabel="time, ps", ylabel="energy - start, eV/atom")
        return draw
    return None
