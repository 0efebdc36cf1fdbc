# SPDX-License-Identifier: MIT
"""What a training shows: a bar with rate and remaining time on a terminal, one line per validation elsewhere, a JSON-lines log."""

import contextlib
import json
import sys
import time


def read_log(path):
    """The records of a log, without lines that a kill cut off."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record


def _balance(report, ranks):
    """The record of an epoch's bins: how well they were balanced, and the cost model that their times give."""
    from ..balance import CostModel

    try:
        cost = json.loads(CostModel.fit(report.pop("loads"), report.pop("seconds")).to_json())
    except (ValueError, RuntimeError):  # too few bins, or all alike
        cost = None
    return report | {"kind": "balance", "ranks": ranks, "cost": cost}


class Log:
    """Appends one JSON object a line, each flushed, so that a killed run leaves whole lines."""

    def __init__(self, path, steps):
        self._file = open(path, "a", encoding="utf-8")
        self._steps = steps

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, record):
        if record["kind"] == "step":
            if not self._steps:
                return
            record = {k: v for k, v in record.items() if k != "frames"}
        self._file.write(json.dumps(record) + "\n")
        if record["kind"] != "step":
            self._file.flush()


class Screen:
    """Messages, bar and table. On a terminal by way of rich; plain lines in a log file."""

    def __init__(self, quiet=False):
        import rich.console

        self.console = rich.console.Console(quiet=quiet, highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)
        self._bar = self._task = None
        self._last_line = 0.0

    def say(self, text):
        self.console.print(text, markup=False)

    def warn(self, text):
        self.console.print(f"warning: {text}", markup=False, style="yellow" if self.console.is_terminal else None)

    def show(self, table):
        self.console.print(table)

    @contextlib.contextmanager
    def bar(self, config, trainer):
        if not self.console.is_terminal:
            yield
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps, {task.fields[rate]}"), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True, refresh_per_second=4, speed_estimate_period=60) as self._bar:
            self._task = self._bar.add_task("initial validation", total=None, rate="")
            yield
        self._bar = None

    def listener(self, config, log, heads, ranks):
        """The callback for the engine: feeds log, bar and lines."""
        epochs = config["max_num_epochs"]
        started = time.monotonic()
        first_step = None

        def listen(report):
            nonlocal first_step
            if report["kind"] == "bins":
                log.write(_balance(report, ranks))
                return
            log.write(report)
            kind = report["kind"]
            if kind == "step":
                if first_step is None:
                    first_step = report["num_steps"] - 1
                if self._bar:
                    rate = (report["num_steps"] - first_step) / max(time.monotonic() - started, 1e-9)
                    self._bar.update(self._task, description=f"epoch {report['epoch'] + 1}/{epochs}  loss {report['loss']:.4g}",
                                     total=epochs * report["num_batches"], completed=report["epoch"] * report["num_batches"] + report["position"],
                                     rate=f"{rate:.3g}/s")
            elif kind == "validation":
                self._line(report, epochs, heads)
            elif kind == "stage_two":
                self.say(f"stage two begins with epoch {report['epoch'] + 1}, lr {report['lr']:g}")
            elif kind in ("warning", "rollback"):
                self.warn(report["message"])

        return listen

    def _line(self, report, epochs, heads):
        # In a log file a line at most every two seconds; the first and the last always.
        now, last = time.monotonic(), report["epoch"] + 1 >= epochs
        if report["epoch"] >= 0 and not last and not self.console.is_terminal and now - self._last_line < 2:
            return
        self._last_line = now
        e = report["errors"]
        name = "initial" if report["epoch"] < 0 else f"epoch {report['epoch'] + 1}/{epochs}"
        stress = f", stress {1000 * e['stress_rmse']:.3f} meV/A^3" if e["stress_rmse"] > 0 else ""
        stress += f", virials {1000 * e['virials_rmse']:.3f} meV/atom" if e["virials_rmse"] > 0 else ""
        if len(heads) > 1:  # the validation loss is the mean of these
            stress += "".join(f", loss of {h} {x:.5g}" for h, x in zip(heads, e["head_losses"]) if x is not None)
        training = f"loss {report['loss']:.5g}, " if report["epoch"] >= 0 else ""
        best = " *" if report["improved"] else ""
        self.say(f"{name}: {training}validation loss {e['loss']:.5g}, E {1000 * e['energy_rmse']:.3f} meV/atom, F {1000 * e['forces_rmse']:.2f} meV/A{stress}, "
                 f"lr {report['lr']:.3g}, {report['seconds']:.1f} s{best}")
