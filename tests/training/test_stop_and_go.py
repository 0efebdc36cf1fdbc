# SPDX-License-Identifier: MIT
"""A training killed at random goes on as if nothing had happened; stop_and_go.py is the harness, and takes more kills."""

import pytest
import stop_and_go
from training_support import core  # noqa: F401


@pytest.mark.parametrize("ranks, go_on_with, deterministic", [(1, [1], False), (2, [2], False), (1, [2, 4, 1], True)])
def test_killed_training_equals_the_whole(core, tmp_path, ranks, go_on_with, deterministic):
    stop_and_go.whole_training(tmp_path / "whole", ranks, deterministic)
    hits = stop_and_go.killed_training(tmp_path / "parts", go_on_with, 3, deterministic, seed=ranks)
    assert hits > 0
    records, _, _ = stop_and_go.compare(tmp_path / "whole", tmp_path / "parts", exact=deterministic or go_on_with == [ranks])
    assert records > 100
