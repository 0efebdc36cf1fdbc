# SPDX-License-Identifier: MIT
"""BalancedBatchSampler: in torch's DataLoader, over mace-torch's data, resumed, on several ranks; cost and memory models."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from macekit import _balance
from macekit.balance import BalancedBatchSampler, Cluster, CostModel, MemoryModel, Plan, Sizes, emulate, evaluate_plan, sample
from macekit.balance.emulator import reference_cost

SIZES = sample("mptrj", 3000, seed=2)


def make(rank=0, num_ranks=1, **options):
    return BalancedBatchSampler(SIZES.num_atoms, SIZES.num_edges, rank=rank, num_ranks=num_ranks, **{"max_atoms": 600, "seed": 3, **options})


@pytest.mark.parametrize("num_ranks, virtual_bins", [(1, 1), (4, 4), (4, 8), (3, 8)])
def test_ranks_share_every_structure_once(num_ranks, virtual_bins):
    samplers = [make(rank, num_ranks, virtual_bins=virtual_bins) for rank in range(num_ranks)]
    for epoch in (0, 1):
        seen = Counter()
        for sampler in samplers:
            sampler.set_epoch(epoch)
            expected = len(sampler)
            batches = list(sampler)
            assert len(batches) == expected
            for batch in batches:
                assert SIZES.num_atoms[batch].sum() <= 600
                seen.update(batch)
        assert seen == Counter(range(3000))
    if virtual_bins % num_ranks == 0:
        assert len({len(s) for s in samplers}) == 1


def test_the_number_of_ranks_changes_only_who_computes_a_bin():
    def steps(num_ranks):
        parts = [list(make(rank, num_ranks, virtual_bins=8).steps()) for rank in range(num_ranks)]
        return [sorted(sorted(bin) for rank in step for bin in rank[0]) for step in zip(*parts)]

    assert steps(1) == steps(2) == steps(8) == steps(3)


def test_sums_over_bins_divided_by_the_totals_are_the_gradient_of_one_batch():
    """A linear model; the loss is the mean over the structures and, in a second term, the atoms of a step."""
    rng = np.random.default_rng(0)
    features, target = rng.normal(size=(3000, 5)), rng.normal(size=3000)
    weights, atoms = rng.normal(size=5), SIZES.num_atoms.astype(float)

    def sums(rows):
        residual = features[rows] @ weights - target[rows]
        return 2 * features[rows].T @ residual, 2 * features[rows].T @ (residual * atoms[rows])

    for num_ranks in (1, 2, 4):
        for parts in zip(*[make(rank, num_ranks, virtual_bins=4).steps() for rank in range(num_ranks)]):
            graphs, total_atoms, _ = parts[0][1]
            rows = [i for batches, _ in parts for batch in batches for i in batch]
            assert (graphs, total_atoms) == (len(rows), SIZES.num_atoms[rows].sum())
            pieces = [sums(batch) for batches, _ in parts for batch in batches]
            ours = sum(p[0] for p in pieces) / graphs + sum(p[1] for p in pieces) / total_atoms
            whole = sums(sorted(rows))
            reference = whole[0] / graphs + whole[1] / total_atoms
            assert np.abs(ours - reference).max() < 1e-12 * max(1, np.abs(reference).max())


def test_resume_at_any_step_and_with_other_ranks():
    straight = [batch for batch in make()]
    for step in (0, 1, 5):
        again = make()
        again.load_state_dict(json.loads(json.dumps({**make().state_dict(), "step": step})))
        assert len(again) == len(straight) - step
        assert list(again) == straight[step:]
    sampler = make(0, 2, virtual_bins=4)
    steps = sampler.steps()
    for _ in range(3):
        next(steps)
    state = sampler.state_dict()
    assert (state["epoch"], state["step"]) == (0, 3)
    rest = Counter()
    for rank in range(4):
        other = make(rank, 4, virtual_bins=4)
        other.load_state_dict(state)
        for batch in other:
            rest.update(batch)
    done = Counter()
    for rank in range(2):
        first = make(rank, 2, virtual_bins=4).steps()
        for _ in range(3):
            for batch in next(first)[0]:
                done.update(batch)
    assert done + rest == Counter(range(3000))


def test_an_epoch_follows_another_without_set_epoch():
    sampler = make()
    first, second = list(sampler), list(sampler)
    assert first != second
    sampler.set_epoch(1)
    assert list(sampler) == second


@pytest.mark.parametrize(
    "change, words",
    [
        ({"max_atoms": 601}, "belongs to plan"),
        ({"seed": 4}, "belongs to plan"),
        ({"state": {"step": 10**6}}, "an epoch has"),
        ({"state": {"step": -1}}, "an epoch has"),
    ],
)
def test_a_foreign_state_is_refused(change, words):
    state = {**make().state_dict(), **change.pop("state", {})}
    with pytest.raises(ValueError, match=words):
        make(**change).load_state_dict(state)
    with pytest.raises(ValueError, match="lacks epoch"):
        make().load_state_dict({k: v for k, v in state.items() if k != "epoch"})


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(num_atoms=[3, 4], num_edges=[1]), "num_atoms has 2"),
        (dict(num_atoms=[3, 4], num_edges=None), "num_edges is missing"),
        (dict(num_atoms=[3.5], num_edges=[1]), "row of integers"),
        (dict(num_atoms=[3, 5000], num_edges=[1, 1], max_atoms=100), r"1 \(5000 atoms"),
        (dict(num_atoms=[3, 4], num_edges=[1, 2], max_atoms=100, rank=2, num_ranks=2), "rank is 2"),
        (dict(num_atoms=[3, 4], num_edges=[1, 2], max_atoms=100, num_ranks=8), "structures for 8 bins"),
        (dict(num_atoms=[3, 4], num_edges=[1, 2]), "size of a step"),
        (dict(num_atoms=[3, 4], num_edges=[1, 2], max_atoms=100, mode="best"), "known are vector, cost"),
        (dict(num_atoms=[3, 4], num_edges=[1, 2], max_atoms=100, mode="cost"), "needs a cost"),
        (dict(num_atoms=[3, 4], num_edges=[1, 2], max_atoms=100, kind="paper"), "takes no kind"),
    ],
)
def test_mistakes_get_a_sentence(arguments, words):
    with pytest.raises(ValueError, match=words):
        BalancedBatchSampler(**arguments)


def test_columns_of_all_widths_and_functions_give_one_plan(tmp_path):
    reference = Plan(SIZES, virtual_bins=4, max_atoms=600)
    atoms, edges = SIZES.num_atoms, SIZES.num_edges
    np.save(tmp_path / "atoms.npy", atoms.astype(np.uint16))
    mapped = np.load(tmp_path / "atoms.npy", mmap_mode="r")
    others = [Sizes(mapped, edges.astype(np.uint32)), Sizes(atoms.tolist(), edges.astype(np.int64)), Sizes.from_function(3000, lambda a, n: (atoms[a : a + n], edges[a : a + n]))]
    for sizes in others:
        plan = Plan(sizes, virtual_bins=4, max_atoms=600)
        assert plan.hash == reference.hash
        assert (plan.step(1, 2).structures == reference.step(1, 2).structures).all()


def test_the_plan_is_that_of_other_machines():
    """A plan recorded once; other processors and compilers must give the same."""
    atoms = 1 + (np.arange(5000) * 2654435761 % 2**32 >> 25)
    edges = atoms * (10 + (np.arange(5000) * 40503 % 65536 >> 11))
    digest = hashlib.sha256()
    for mode, cost in (("vector", None), ("cost", CostModel(atom=1, edge=0.03, graph=0.5))):
        plan = Plan(atoms, edges, virtual_bins=16, max_atoms=1000, max_edges=30000, mode=mode, cost=cost)
        for k in range(plan.num_steps()):
            step = plan.step(2, k)
            digest.update(step.structures.tobytes() + step.first.tobytes())
    assert digest.hexdigest()[:16] == "70bcfefc6fea5b12"


def test_torch_is_not_needed():
    code = "import sys, macekit.balance; assert 'torch' not in sys.modules; macekit.balance.Plan([3, 4], [2, 2], max_atoms=9)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_permutation_equals_numpy_sorting_of_its_image():
    image = _balance.permutation(1000, 5, list(range(1000)))
    assert (np.sort(image) == np.arange(1000)).all()
    assert abs(np.corrcoef(image, np.arange(1000))[0, 1]) < 0.15


@pytest.mark.parametrize("workers", [0, 2])
def test_in_the_data_loader_of_torch(workers):
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.arange(3000), torch.from_numpy(SIZES.num_atoms))
    sampler = make(0, 2, virtual_bins=4)
    loader = torch.utils.data.DataLoader(data, batch_sampler=sampler, num_workers=workers)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        direct = make(0, 2, virtual_bins=4)
        direct.set_epoch(epoch)
        batches = list(loader)
        assert [rows.tolist() for rows, _ in batches] == list(direct)
        assert all(atoms.sum() <= 600 for _, atoms in batches)


def test_over_the_data_of_mace_torch():
    python = os.environ.get("MACEKIT_PEER_PYTHON")
    if not python:
        pytest.skip("MACEKIT_PEER_PYTHON is not set; `make test` sets it")
    package = str(Path(__file__).parents[2] / "python")
    done = subprocess.run([python, "-W", "ignore", str(Path(__file__).parent / "mace_torch_loader.py")], env={**os.environ, "PYTHONPATH": package}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["visits"] == [1] * 60
    assert result["largest"] <= 40
    assert result["loss_whole"] == pytest.approx(result["loss_bins"], rel=1e-12)


def test_cost_model_recovers_what_made_the_times():
    rng = np.random.default_rng(1)
    loads = np.column_stack([rng.integers(1, 40, 60), rng.integers(50, 3000, 60), rng.integers(1000, 200000, 60)])
    true = CostModel(3e-3, 2e-5, 4e-7, 1e-5)
    exact = CostModel.fit(loads, true(loads))
    assert exact.sigma < 1e-10 and exact.atom == pytest.approx(2e-5) and exact.edge == pytest.approx(4e-7) and exact.start == pytest.approx(3e-3)
    noisy = CostModel.fit(loads, true(loads) * (1 + 0.02 * rng.standard_normal(60)))
    assert 0.015 < noisy.sigma < 0.026
    assert CostModel.from_json(noisy.to_json()) == noisy
    none_negative = CostModel.fit(loads, 1.0 / loads[:, 1] + 1e-6 * loads[:, 2])
    assert min(none_negative.start, none_negative.atom, none_negative.edge, none_negative.graph) >= 0
    for bad in ((loads[:3], np.ones(3)), (loads, -np.ones(60)), (loads, np.full(60, np.nan)), (loads[:, :2], np.ones(60))):
        with pytest.raises(ValueError):
            CostModel.fit(*bad)
    with pytest.raises(ValueError, match="none of them negative"):
        CostModel.from_json('{"atom": -1}')


def test_memory_model_gives_limits_that_hold():
    model = MemoryModel(2**28, 1e5, 2e3, 0, 0.01)
    atoms, edges = model.limits(2**32, 60)
    assert model([0, atoms, edges]) <= 0.96 * 2**32 < 1.01 * model([0, atoms, edges])
    with pytest.raises(ValueError, match="do not hold one atom"):
        model.limits(2**28, 60)


def test_evaluation_counts_what_the_plan_does():
    cost = reference_cost(int(SIZES.num_atoms.sum()), int(SIZES.num_edges.sum()))
    for kind in ("balanced", "fixed", "max-atoms"):
        plan = Plan(SIZES, kind=kind, virtual_bins=8, max_atoms=600, bin_graphs=17)
        e = evaluate_plan(plan, cost, 8)
        loads = [plan.step(0, k).loads for k in range(plan.num_steps())]
        work = np.array([cost(x) for x in loads if len(x) == 8])
        assert e.efficiency == pytest.approx(work.mean(1).sum() / work.max(1).sum())
        visits = np.bincount(np.concatenate([plan.step(0, k).structures for k in range(plan.num_steps())]), minlength=3000)
        assert (e.dropped, e.repeated) == ((visits == 0).sum(), (visits - 1).clip(0).sum())
        assert e.padding_atoms == pytest.approx(1 - np.concatenate(loads)[:, 1].mean() / np.concatenate(loads)[:, 1].max())


def test_emulated_epoch_is_the_sum_of_slowest_ranks_and_of_messages():
    cost = CostModel(1e-3, 1e-5, 1e-7, 0)
    plan = Plan(SIZES, virtual_bins=8, max_atoms=600)
    for ranks in (4, 8):
        quiet = emulate(plan, cost, ranks, Cluster(parameters=1e6, bandwidth=1e9, latency=1e-5, jitter=0))
        slowest = sum(max(sum(cost(step.loads)[b] for b in bins) for bins in step.assign(ranks)) for step in map(lambda k: plan.step(0, k), range(plan.num_steps())))
        message = 2 * 4e6 * (ranks - 1) / ranks / 1e9 + 1e-5 * np.ceil(np.log2(ranks))
        assert quiet["seconds"] == pytest.approx(slowest + plan.num_steps() * message)
        assert emulate(plan, cost, ranks, Cluster(jitter=0.05))["seconds"] > emulate(plan, cost, ranks, Cluster(jitter=0))["seconds"]
    assert Cluster().all_reduce(1) == 0
