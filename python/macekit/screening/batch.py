# SPDX-License-Identifier: MIT
"""Many calculations at once, each written as if it were alone.

ASE's optimisers, filters and integrators ask for forces one structure at a time. Here each calculation runs in a greenlet: where it asks, it
rests, and when all that run are resting, what they wait for is evaluated in one batch. A calculation that ends makes room for the next.
"""

from __future__ import annotations

import collections

import greenlet

from .. import _core
from ..calculator import MACECalculator
from ..potentials import load


class Failure(Exception):
    """A calculation that cannot go on; the message is the reason, one sentence. `result` is what it had until then, if that is worth a look."""

    def __init__(self, reason: str, result: dict | None = None):
        super().__init__(reason)
        self.result = result


class OptionError(ValueError):
    """An option that is wrong for every structure."""


class Batch:
    """Evaluates a potential for many calculations together.

    Args:
        potential: path, name of a potential that comes with macekit, or loaded potential
        precision: as for MACECalculator
        head: as for MACECalculator
        device: as for MACECalculator
        inputs: as for MACECalculator
        radial: as for MACECalculator
        batch_atoms: structures are taken up until those that run have this many atoms, and evaluated together up to this many
    """

    def __init__(self, potential, precision: str = "float64", head: str | None = None, device: str = "auto", inputs: dict | None = None, radial: str = "table",
                 batch_atoms: int = 2000):
        if batch_atoms < 1:
            raise ValueError(f"batch_atoms is {batch_atoms}, it must be positive.")
        self._potential = load(potential)
        self._options = dict(precision=precision, head=head, device=device, inputs=inputs, radial=radial)
        self._evaluator = _core.Evaluator(self._potential, precision, device, radial)
        self._batch_atoms = batch_atoms
        self._hub = None  # the greenlet that evaluates, while run() is at work
        self._ready = collections.deque()  # (greenlet, value or exception to go on with)
        self._waiting = []  # (greenlet, structure, gradient, features, uncertainty)
        self._active_atoms = 0
        self.num_evaluations = self.num_batches = 0

    def calculator(self, uncertainty: bool = False) -> MACECalculator:
        """An ASE calculator. In a calculation of run() it waits for the batch, elsewhere it evaluates at once."""
        return _Calculator(self, uncertainty)

    def run(self, calculation, items, sizes=None):
        """Yields (index, result) as calculations end, in no order: what calculation(item) returned, or the exception it ended with.

        Args:
            calculation: a function of one item that takes its forces from `calculator()`
            items: what it is called with
            sizes: atoms of each item (default: len(item)), which decide how many run at once
        """
        if self._hub is not None:
            raise RuntimeError("run() is at work already; inside a calculation use together().")
        items = list(items)
        sizes = [len(item) for item in items] if sizes is None else list(sizes)
        ended, begun, running = collections.deque(), 0, 0
        self._hub = greenlet.getcurrent()

        def start(index):
            try:
                ended.append((index, calculation(items[index])))
            except greenlet.GreenletExit:
                pass
            except Exception as error:  # of one structure; the others go on
                ended.append((index, error))
            self._active_atoms -= sizes[index]

        alive = set()
        try:
            while True:
                while begun < len(items) and (not running or self._active_atoms + sizes[begun] <= self._batch_atoms):
                    self._active_atoms += sizes[begun]
                    child = greenlet.greenlet(start)
                    alive.add(child)
                    begun, running = begun + 1, running + 1
                    child.switch(begun - 1)
                    while ended:
                        running -= 1
                        yield ended.popleft()
                if not running:
                    return
                self._go_on()
                while ended:
                    running -= 1
                    yield ended.popleft()
                alive = {child for child in alive if not child.dead}
        finally:
            self._waiting.clear(), self._ready.clear()
            for child in alive:
                if not child.dead:
                    child.throw(greenlet.GreenletExit)
            self._hub, self._active_atoms = None, 0

    def together(self, calculation, items) -> list:
        """In a calculation: runs calculation(item) for all items at the same time; their results in order. The first exception is raised."""
        items = list(items)
        if self._hub is None or greenlet.getcurrent() is self._hub:
            return [calculation(item) for item in items]
        parent, results, left = greenlet.getcurrent(), [None] * len(items), len(items)

        def start(index):
            nonlocal left
            try:
                results[index] = calculation(items[index])
            except greenlet.GreenletExit:
                return
            except Exception as error:
                results[index] = error
            left -= 1
            if not left:
                self._ready.append((parent, None))

        children = [greenlet.greenlet(start, self._hub) for _ in items]
        self._ready.extend((child, index) for index, child in enumerate(children))
        try:
            if items:
                self._hub.switch()
        finally:
            for child in children:
                if not child.dead:
                    child.throw(greenlet.GreenletExit)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return results

    def evaluate(self, structures, gradient=True, features=False, uncertainty=False):
        """What _core.Evaluator.compute returns. For one structure it waits in a calculation; several are a batch already."""
        if self._hub is None or greenlet.getcurrent() is self._hub or len(structures) != 1:
            return self._evaluator.compute(structures, gradient, features, uncertainty)
        (structure,) = structures
        self._waiting.append((greenlet.getcurrent(), structure, gradient, features, uncertainty))
        return self._hub.switch()

    def _go_on(self):
        """Lets everything run that can, or else evaluates a batch."""
        while self._ready:
            child, value = self._ready.popleft()
            if not child.dead:
                child.throw(value) if isinstance(value, Exception) else child.switch(value)
        if not self._waiting:
            return
        # A batch holds requests of one kind.
        kind = self._waiting[0][2:]
        batch, rest, atoms = [], [], 0
        for request in self._waiting:
            size = len(request[1][0])
            if request[2:] == kind and (not batch or atoms + size <= self._batch_atoms):
                batch.append(request)
                atoms += size
            else:
                rest.append(request)
        self._waiting = rest
        self._ready.extend(zip((request[0] for request in batch), self._compute([request[1] for request in batch], *kind)))

    def _compute(self, structures, *kind):
        """The outcome of each structure: results, or the exception that it caused."""
        try:
            out = self._evaluator.compute(structures, *kind)
        except ValueError as error:
            if len(structures) == 1:
                return [Failure(str(error))]
            return [one for structure in structures for one in self._compute([structure], *kind)]
        self.num_evaluations, self.num_batches = self.num_evaluations + len(structures), self.num_batches + 1
        outcomes, begin = [], 0
        for g, structure in enumerate(structures):
            end = begin + len(structure[0])
            one = {name: out[name][g:g + 1] for name in ("energy", "virial", "uncertainty") if name in out}
            one.update({name: out[name][begin:end] for name in ("node_energy", "forces", "node_virial", "node_features", "node_uncertainty") if name in out})
            outcomes.append(one)
            begin = end
        return outcomes


class _Calculator(MACECalculator):
    def __init__(self, batch, uncertainty):
        self._batch = batch
        super().__init__(batch._potential, uncertainty=uncertainty, **batch._options)

    def _new_evaluator(self):
        return _Door(self._batch)


class _Door:
    """What a calculator takes for its evaluator."""

    def __init__(self, batch):
        self._batch = batch

    def compute(self, structures, *kind):
        return self._batch.evaluate(structures, *kind)

    @property
    def invariant_columns(self):
        return self._batch._evaluator.invariant_columns
