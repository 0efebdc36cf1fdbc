# SPDX-License-Identifier: MIT
from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import numpy as np

from . import InputError, Parser

_ABOUT = """How structures are distributed over ranks: balance, padding, memory, and the time of an epoch on a cluster that is not there.

  macekit plan train.extxyz --r-max 5 --max-atoms 500 --ranks 8
  macekit plan sizes.npz --max-atoms 3072 --ranks 740 --forecast 16,128,740,4096 --json plan.json --plot plan.png
  macekit plan paper-mix --ranks 740                     the mix of eight systems of arXiv:2504.10700, drawn from its statistics
  macekit plan paper-mix --ranks 740 --times macekit.json --times mace-torch.json --samplers fixed,paper,balanced

SIZES is a file that ASE reads (edges are counted within --r-max), NAME.json or NAME.npz with num_atoms and num_edges, a folder of prepared
data, or one of paper-mix, mptrj, omat24, spice.

The table has macekit's sampler and what others do. balance: mean over maximum of the ranks' work, summed over the steps of an epoch, by the
true cost: that of the first --times, or 0.45 an atom + 0.55 an edge over the mean number of edges of an atom + 0.3 a structure. padding:
what one array shape that holds every bin wastes. dropped, repeated: structures in one epoch. --times are logs of macekit train (NAME.log.jsonl) or
files of benchmarks/bin_times.py.
docs/data-distribution.md explains the method.
"""

SAMPLERS = {  # name: (kind, options, what it is)
    "fixed": ("fixed", {}, "fixed count (mace-torch)"),
    "fairchem": ("fairchem", {}, "fairchem balanced"),
    "max-atoms": ("max-atoms", {}, "max-atoms next fit"),
    "sorted": ("sorted", {}, "cost-sorted steps"),
    "paper": ("paper", {}, "iterative bin packing"),
    "cost": ("balanced", {"mode": "cost"}, "macekit, one cost"),
    "balanced": ("balanced", {}, "macekit"),
}


def _parser():
    parser = Parser(prog="macekit plan", description=_ABOUT)
    parser.add_argument("sizes", metavar="SIZES", help="structures, a table of sizes, prepared data, or the name of a distribution")
    parser.add_argument("--r-max", type=float, help="cut-off within which edges of structures are counted, Angstrom")
    parser.add_argument("--count", type=int, help="structures drawn from a distribution (default: as many as the set has, at most 2.7 million)")
    parser.add_argument("--ranks", type=int, default=8, help="number of ranks (default 8)")
    parser.add_argument("--virtual-bins", type=int, help="bins of one optimiser step (default: the number of ranks)")
    limits = parser.add_argument_group("limits of a bin")
    limits.add_argument("--max-atoms", type=int, default=0)
    limits.add_argument("--max-edges", type=int, default=0)
    limits.add_argument("--max-graphs", type=int, default=0, help="structures")
    limits.add_argument("--memory", type=float, metavar="GIB", help="of one rank; gives --max-atoms and --max-edges by the memory measured in the first --times")
    limits.add_argument("--step-graphs", type=int, default=0, help="structures of one optimiser step, in place of as many as the limits allow")
    limits.add_argument("--bin-graphs", type=int, help="structures of a bin in the samplers fixed and fairchem (default: as many as fill 97 %% of --max-atoms on average)")
    method = parser.add_argument_group("method")
    method.add_argument("--mode", default="vector", help="vector (default: atoms and edges) or cost (the true cost)")
    method.add_argument("--nodes", type=int, default=1, help="structures stay on their node; must divide the ranks")
    method.add_argument("--window-steps", type=int, default=0, help="steps packed together (default: 1, or more for giant structures)")
    method.add_argument("--block-size", type=int, default=4096, help="structures that are read together (default 4096)")
    method.add_argument("--seed", type=int, default=0)
    method.add_argument("--samplers", default="all", help=f"which to compare: all, or of {','.join(SAMPLERS)}")
    cluster = parser.add_argument_group("emulated cluster")
    cluster.add_argument("--forecast", help="numbers of ranks, such as 16,128,740,8192; every one has its own plan unless --virtual-bins is given")
    cluster.add_argument("--times", action="append", default=[], metavar="FILE", help="measured times of bins, NAME.log.jsonl or from benchmarks/bin_times.py; several are compared")
    cluster.add_argument("--atoms-per-second", type=float, default=20000, help="of one rank, where no times are given (default 20000)")
    cluster.add_argument("--parameters", type=float, default=4e6, help="of the model, float32 (default 4e6)")
    cluster.add_argument("--bandwidth", type=float, default=25, help="of one rank in the all-reduce, GB/s (default 25: a 200 Gbit/s link)")
    cluster.add_argument("--latency", type=float, default=20, help="of each of log2(ranks) stages of the all-reduce, microseconds (default 20)")
    cluster.add_argument("--jitter", type=float, default=0.01, help="standard deviation of a rank's time in a step, relative (default 0.01)")
    parser.add_argument("--json", metavar="OUT", help="write everything as JSON")
    parser.add_argument("--plot", metavar="OUT.png", help="draw a picture")
    return parser


def run(argv) -> int:
    args = _parser().parse_args(argv)
    from macekit.balance import Cluster, Plan, emulate, evaluate_plan
    from macekit.balance.emulator import reference_cost

    forecast = _check(args)
    times = [read_times(path) for path in args.times]
    sizes = _sizes(args)
    num_atoms, num_edges = int(sizes.num_atoms.sum(dtype=np.int64)), int(sizes.num_edges.sum(dtype=np.int64))
    memory = times[0]["memory"] if times else None
    _limits(args, memory, num_edges / num_atoms)
    names = _samplers(args)
    true_cost = times[0]["cost"] if times else reference_cost(num_atoms, num_edges)
    if not times:  # the true cost, in seconds
        work = float(true_cost(np.array([len(sizes), num_atoms, num_edges])))
        second = num_atoms / args.atoms_per_second / work
        scaled = dataclasses.replace(true_cost, atom=true_cost.atom * second, edge=true_cost.edge * second, graph=true_cost.graph * second)
        times = [{"name": f"{args.atoms_per_second:g} atoms/s", "cost": scaled, "memory": None}]
    cluster = Cluster(args.parameters, 4.0, args.bandwidth * 1e9, args.latency * 1e-6, args.jitter)

    def plan_of(name, ranks):
        kind, more, _ = SAMPLERS[name]
        options = {"virtual_bins": ranks if kind != "balanced" or not args.virtual_bins else args.virtual_bins, "seed": args.seed, "max_atoms": args.max_atoms, **more}
        if kind == "balanced":
            options.update(max_edges=args.max_edges, max_graphs=args.max_graphs, step_graphs=args.step_graphs, nodes=args.nodes,
                           window_steps=args.window_steps, block_size=args.block_size, **({} if more else {"mode": args.mode}))  # fmt: skip
            options["window_blocks"] = max(1, 2**22 // args.block_size)
        elif kind in ("fixed", "fairchem"):
            options["bin_graphs"] = args.bin_graphs or _usual_count(args, sizes, num_atoms)
        return Plan(sizes, kind=kind, cost=true_cost, **options)

    rows, forecasts, pictures = [], [], {}
    for name in names:
        start = time.process_time()
        plan = plan_of(name, args.ranks)
        start = time.process_time() - start
        e = evaluate_plan(plan, true_cost, args.ranks)
        row = {"sampler": name, "steps": len(e.mean), "balance": e.efficiency, "padding_atoms": e.padding_atoms, "padding_edges": e.padding_edges,
               "largest_graphs": e.largest_graphs, "largest_atoms": e.largest_atoms, "largest_edges": e.largest_edges, "num_bins": e.num_bins, "dropped": e.dropped,
               "repeated": e.repeated, "planning_seconds": start + e.seconds, "plan": plan.hash}  # fmt: skip
        if memory:
            row["memory_bytes"] = float(memory([e.largest_graphs, e.largest_atoms, e.largest_edges]))
        rows.append(row)
        pictures[name] = np.concatenate([plan.step(0, k).loads for k in range(min(plan.num_steps(0), max(1, 1500 // args.ranks)))])
        for ranks in forecast:
            other = plan if ranks == args.ranks else plan_of(name, ranks)
            for measured in times:
                forecasts.append({"sampler": name, "times": measured["name"], **emulate(other, measured["cost"], ranks, cluster, max_steps=64)})
    report = {
        "sizes": args.sizes, "structures": len(sizes), "atoms": num_atoms, "edges": num_edges, "largest_atoms": int(sizes.num_atoms.max()),
        "largest_edges": int(sizes.num_edges.max()), "ranks": args.ranks, "virtual_bins": args.virtual_bins or args.ranks, "max_atoms": args.max_atoms,
        "max_edges": args.max_edges, "max_graphs": args.max_graphs, "step_graphs": args.step_graphs, "mode": args.mode, "seed": args.seed,
        "true_cost": dataclasses.asdict(true_cost), "cluster": dataclasses.asdict(cluster), "samplers": rows, "forecasts": forecasts,
    }  # fmt: skip
    _print(report, bool(memory))
    if args.json:
        temporary = f"{args.json}.tmp{os.getpid()}"
        Path(temporary).write_text(json.dumps(report, indent=1) + "\n")
        os.replace(temporary, args.json)
    if args.plot:
        _draw(args.plot, report, pictures)
    return 0


def _check(args):
    """The numbers of ranks of the forecast."""
    if args.ranks < 1:
        raise InputError(f"--ranks is {args.ranks}, it must be positive")
    if args.virtual_bins is not None and args.virtual_bins < 1:
        raise InputError(f"--virtual-bins is {args.virtual_bins}, it must be positive")
    if args.block_size < 1:
        raise InputError(f"--block-size is {args.block_size}, it must be positive")
    if args.nodes > 1 and args.ranks % args.nodes:
        raise InputError(f"--ranks is {args.ranks} and --nodes {args.nodes}; nodes must divide ranks")
    for name in ("atoms_per_second", "bandwidth"):
        if not getattr(args, name) > 0:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(args, name)}, it must be positive")
    for name in ("parameters", "latency", "jitter"):
        if not getattr(args, name) >= 0:
            raise InputError(f"--{name} is {getattr(args, name)}, it must not be negative")
    for path in (args.json, args.plot):
        if path and not os.path.isdir(os.path.dirname(os.path.abspath(path))):
            raise InputError(f"the folder {os.path.dirname(os.path.abspath(path))} of {path} does not exist")
    if args.plot and not args.plot.endswith((".png", ".pdf", ".svg")):
        raise InputError(f"--plot {args.plot} must end in .png, .pdf or .svg")
    try:
        ranks = [int(text) for text in (args.forecast or str(args.ranks)).split(",")]
    except ValueError:
        raise InputError(f"--forecast {args.forecast}: expected numbers of ranks, such as 16,128,740") from None
    if min(ranks) < 1 or max(ranks) > 65536:
        raise InputError(f"--forecast {args.forecast}: numbers of ranks go from 1 to 65536")
    if args.nodes > 1 and any(r % args.nodes for r in ranks):
        raise InputError(f"--forecast {args.forecast}: every number of ranks must be a multiple of --nodes {args.nodes}")
    return ranks


def _samplers(args):
    if args.samplers == "all":
        names = list(SAMPLERS)
    else:
        names = args.samplers.split(",")
        for name in names:
            if name not in SAMPLERS:
                raise InputError(f"--samplers: unknown sampler {name}; known are {', '.join(SAMPLERS)}")
    if args.mode not in ("vector", "cost"):
        raise InputError(f"--mode {args.mode} is unknown; use vector or cost")
    return names


def _sizes(args):
    from macekit.balance import DISTRIBUTIONS, sample, sizes_of

    if args.sizes in DISTRIBUTIONS and not os.path.exists(args.sizes):
        if args.r_max is not None:
            raise InputError(f"--r-max has no meaning for the distribution {args.sizes}")
        if args.count is not None and args.count < 1:
            raise InputError(f"--count is {args.count}, it must be positive")
        if not (args.max_atoms or args.step_graphs or args.memory):
            args.max_atoms = DISTRIBUTIONS[args.sizes][2]
        return sample(args.sizes, args.count, args.seed)
    if args.count is not None:
        raise InputError(f"--count is for distributions; {args.sizes} has a number of structures of its own")
    return sizes_of(args.sizes, args.r_max)


def _limits(args, memory, edges_per_atom):
    if args.memory is not None:
        if args.max_atoms or args.max_edges:
            raise InputError("--memory gives max-atoms and max-edges; leave those out")
        if memory is None:
            raise InputError("--memory needs --times FILE with a memory model (benchmarks/bin_times.py measures one)")
        args.max_atoms, args.max_edges = memory.limits(args.memory * 2**30, edges_per_atom)
    if not (args.max_atoms or args.step_graphs):
        raise InputError("how large is a bin? Give --max-atoms, --memory or --step-graphs")
    if not args.max_atoms and args.samplers == "all":
        args.samplers = "fixed,fairchem,cost,balanced"


def _usual_count(args, sizes, num_atoms):
    if args.step_graphs:
        return max(1, args.step_graphs // args.ranks)
    return max(1, round(0.97 * args.max_atoms * len(sizes) / num_atoms))


def read_times(path):
    """{"name", "cost", "memory" or None} of a file of benchmarks/bin_times.py, or of a training's log, whose last epoch counts."""
    from macekit.balance import CostModel, MemoryModel

    if str(path).endswith(".jsonl"):
        from macekit.training.progress import read_log

        costs = [record["cost"] for record in read_log(path) if record.get("kind") == "balance" and record.get("cost")]
        if not costs:
            raise InputError(f"{path}: no epoch in it has measured the cost of bins; that takes an epoch with at least five bins of different sizes")
        try:
            return {"name": "macekit", "cost": CostModel.from_dict(costs[-1]), "memory": None}
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None
    try:
        table = json.loads(Path(path).read_text())
    except ValueError as error:
        raise OSError(f"{path}: is no JSON ({error})") from None
    try:
        bins = np.array([[b["graphs"], b["atoms"], b["edges"]] for b in table["bins"]], float)
        cost = CostModel.fit(bins, [b["seconds"] for b in table["bins"]])
        has_memory = all("bytes" in b for b in table["bins"])
        memory = MemoryModel.fit(bins, [b["bytes"] for b in table["bins"]]) if has_memory else None
        return {"name": str(table["code"]), "cost": cost, "memory": memory}
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: lacks {error}; a file of times has code and bins, each with graphs, atoms, edges and seconds") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def _print(report, has_memory):
    print(f"{report['sizes']}: {report['structures']:,} structures, {report['atoms']:,} atoms, {report['edges']:,} edges; "
          f"largest {report['largest_atoms']} atoms, {report['largest_edges']} edges")  # fmt: skip
    limits = [f"{report[key]} {what}" for key, what in (("max_atoms", "atoms"), ("max_edges", "edges"), ("max_graphs", "structures")) if report[key]]
    print(f"{report['ranks']} ranks, {report['virtual_bins']} bins a step" + (f" of at most {', '.join(limits)}" if limits else "")
          + (f", {report['step_graphs']} structures a step" if report["step_graphs"] else ""))  # fmt: skip
    print(f"\n{'sampler':27}{'steps':>7}{'balance':>9}{'padding, %':>14}{'largest bin':>17}{'memory':>10}{'dropped':>9}{'repeated':>9}{'planning':>10}")
    print(f"{'':27}{'':7}{'':9}{'atoms  edges':>14}{'atoms    edges':>17}{'GiB':>10}{'':9}{'':9}{'s':>10}")
    for r in report["samplers"]:
        memory = f"{r['memory_bytes'] / 2**30:.2f}" if has_memory else "-"
        print(f"{SAMPLERS[r['sampler']][2]:27}{r['steps']:7}{r['balance']:9.4f}{100 * r['padding_atoms']:7.2f}{100 * r['padding_edges']:7.2f}"
              f"{r['largest_atoms']:8}{r['largest_edges']:9}{memory:>10}{r['dropped']:9}{r['repeated']:9}{r['planning_seconds']:10.2f}")  # fmt: skip
    print(f"\n{'an epoch':27}{'times of':>14}{'ranks':>7}{'seconds':>12}{'efficiency':>11}   lost to: imbalance   noise   all-reduce")
    for f in report["forecasts"]:
        print(f"{SAMPLERS[f['sampler']][2]:27}{f['times'][:13]:>14}{f['num_ranks']:7}{f['seconds']:12.4g}{f['efficiency']:11.3f}"
              f"{100 * f['imbalance']:20.1f} %{100 * f['noise']:6.1f} %{100 * f['reduce']:10.1f} %")  # fmt: skip


COLOURS = {"balanced": "#0b6e4f", "cost": "#6dbf9b", "paper": "#d1603d", "sorted": "#c9a227", "max-atoms": "#8a7fb5", "fairchem": "#5b8db8", "fixed": "#9a9a9a"}


def _draw(path, report, bins):
    """Balance of the samplers; bins of a few steps in the plane of atoms and edges; efficiency over ranks."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    first_times = report["forecasts"][0]["times"] if report["forecasts"] else None
    curves = {}
    for f in report["forecasts"]:
        if f["times"] == first_times:
            curves.setdefault(f["sampler"], []).append((f["num_ranks"], f["seconds"], f["ideal"]))
    several = any(len({r for r, _, _ in points}) > 1 for points in curves.values())
    figure = Figure(figsize=(14 if several else 10, 4.2), layout="constrained", dpi=150)
    axes = figure.subplots(1, 3 if several else 2)
    for a in axes:
        a.spines[["top", "right"]].set_visible(False)
    rows = report["samplers"]
    names = [SAMPLERS[r["sampler"]][2] for r in rows]
    bars = axes[0].barh(names, [r["balance"] for r in rows], color=[COLOURS[r["sampler"]] for r in rows], height=0.7)
    axes[0].bar_label(bars, [f"{r['balance']:.3f}" for r in rows], padding=4, fontsize=9)
    axes[0].set(xlim=(0, 1.12), xlabel="mean / slowest rank", title=f"Balance on {report['ranks']} ranks")
    axes[0].spines["left"].set_visible(False)
    axes[0].tick_params(axis="y", length=0)
    shown = [name for name in ("fixed", "fairchem", "max-atoms", "paper", "cost", "balanced") if name in bins]
    shown = [name for name in shown if name in ("fixed", "paper", "balanced")] or shown
    for name in shown:
        graphs, atoms, edges = bins[name].T
        axes[1].plot(atoms, edges / 1000, ".", markersize=5 if name == "balanced" else 3, alpha=0.8 if name == "balanced" else 0.5,
                     color=COLOURS[name], label=SAMPLERS[name][2], rasterized=True, markeredgewidth=0, zorder=4 if name == "balanced" else 3)  # fmt: skip
    if report["max_atoms"]:
        axes[1].axvline(report["max_atoms"], color="black", linewidth=0.8, linestyle=":")
        axes[1].annotate("limit", (report["max_atoms"], 1), xycoords=("data", "axes fraction"), xytext=(3, -2), textcoords="offset points", va="top", fontsize=8)
    axes[1].set(xlim=(0, None), ylim=(0, None), xlabel="atoms", ylabel="thousand edges", title="Bins, each one rank in one step")
    axes[1].legend(frameon=False, markerscale=3, fontsize=9, loc="lower right")
    if several:
        for name, points in curves.items():
            ranks, seconds, ideal = np.array(sorted(points)).T
            axes[2].semilogx(ranks, ideal / seconds, "o-", color=COLOURS[name], markersize=4, linewidth=1.6, zorder=3 if name == "balanced" else 2)
        axes[2].set_xticks(ranks, [f"{r:.0f}" for r in ranks])
        axes[2].minorticks_off()
        axes[2].set(ylim=(0, 1.02), xlabel="ranks", ylabel="ideal time / emulated time", title=f"An epoch, times of {first_times}")
        axes[2].grid(axis="y", color="#dddddd", linewidth=0.6)
    figure.suptitle(f"{Path(report['sizes']).name}: {report['structures']:,} structures", x=0.01, ha="left", fontsize=11, color="#444444")
    figure.savefig(path)
