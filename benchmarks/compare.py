# SPDX-License-Identifier: MIT
"""Times macekit and mace-torch on the same work in the same run, in turns, and prints medians and ratios.

A worker is a process that answers `go N` with the seconds of N repetitions; it runs in its own environment.
"""

import json
import os
import shlex
import statistics
import subprocess
import sys
import time


def serve(work):
    """Runs a worker: `work()` does one repetition and returns when it is finished."""
    print("ready", flush=True)
    for line in sys.stdin:
        count = int(line.split()[1])
        start = time.perf_counter()
        for _ in range(count):
            work()
        print((time.perf_counter() - start) / count, flush=True)


def _environment(python, threads):
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    if python != sys.executable:
        environment["PYTHONPATH"] = ""
    return environment


def run_with_mace_torch(script, options):
    """Runs `script --worker options` with mace-torch's Python and options["threads"] to its end; what it wrote as JSON to options["results"]."""
    python = os.environ["MACEKIT_PEER_PYTHON"]
    subprocess.run([python, "-W", "ignore", script, "--worker", json.dumps(options)], check=True, env=_environment(python, options["threads"]))
    with open(options["results"]) as file:
        return json.load(file)


class Worker:
    def __init__(self, python, script, options, threads):
        self.process = subprocess.Popen([python, script, "--worker", json.dumps(options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment(python, threads))
        while (line := self.process.stdout.readline()).strip() != "ready":
            if not line:
                raise SystemExit(f"the worker {options} stopped before it was ready")

    def time(self, count):
        self.process.stdin.write(f"go {count}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def interleave(workers, rounds=7, seconds=2.0):
    """{name: [seconds per repetition of each round]}; every worker gets about `seconds` a round, after a warm-up."""
    counts = {name: max(1, int(seconds / max(w.time(1), w.time(1)))) for name, w in workers.items()}
    times = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            times[name].append(worker.time(counts[name]))
    return times


def table(rows):
    """rows: [(label, {name: times})] with the peer last; prints medians, spread and the ratio to the peer."""
    for label, times in rows:
        *ours, peer = times
        base = statistics.median(times[peer])
        for name, values in times.items():
            middle = statistics.median(values)
            spread = (max(values) - min(values)) / middle
            print(f"{label:24} {name:20} {1000 * middle:10.2f} ms   spread {100 * spread:4.0f} %   {base / middle:6.1f} x {peer}")


def processor():
    """Its name, and how many cores this process may use."""
    names = []
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return f"{names[0] if names else 'unknown processor'}, {len(os.sched_getaffinity(0))} cores"


def write_result(path, title, conditions, columns, rows):
    """One file of benchmarks/results, whose README describes it. columns: [(name, unit)]."""
    result = {"title": title, "conditions": conditions, "machine": processor(), "date": time.strftime("%Y-%m"), "command": shlex.join(["python", *sys.argv]), "columns": columns, "rows": rows}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1, ensure_ascii=False)
