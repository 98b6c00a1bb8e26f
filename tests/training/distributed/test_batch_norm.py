"""Batch norm over all ranks: steps of two ranks are those of one, running statistics included."""

import numpy as np
import pytest

from tests.training.distributed.launch import TOLERANCE, apart, launch

pytestmark = pytest.mark.slow

#: Inputs vary within a batch. A field that is constant there has no gradient before a norm but rounding, of which Adam
#: makes whole steps: what a land-use model learns from the year alone differs from run to run and means nothing.
PROGRAM = """
import sys
import numpy as np
from earthsr.backend import get_backend
from earthsr.data.batch import Batch
from earthsr.models import CrossEntropyLoss, OptimizerSpec, UNetSpec, initial_weights
from earthsr.ranks import Rank, launched_rank
from earthsr.landuse.tile_task import synthetic_tiles

backend, target = sys.argv[1:]
rank = launched_rank() or Rank()
spec = UNetSpec(coarse_channels=2, static_channels=2, classes=3, width=4, depth=1)
engine = get_backend(backend).engine(spec, initial_weights(spec, 0), device="cpu", distribute=True)
engine.prepare_training(CrossEntropyLoss(), OptimizerSpec(), sync_batch_norm=True)
share = slice(rank.number * 4 // rank.of, (rank.number + 1) * 4 // rank.of)
batches = [
    Batch({k: v[share] for k, v in b.inputs.items()}, b.target[share], b.mask[share], b.sample_weight[share])
    for b in synthetic_tiles(spec, 16, 4, 8).batches
]
losses = engine.run(batches, [1e-3] * 8).result().losses
if rank.number == 0:
    np.savez(target, losses=losses, **engine.export_state().weights)
"""


def test_two_ranks_learn_what_one_does(tmp_path):
    pytest.importorskip("torch")
    backend = "torch"
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    found = []
    for ranks in (1, 2):
        target = tmp_path / f"{ranks}.npz"
        done = launch(backend, ranks, tmp_path, backend, target, program=program)
        assert done.returncode == 0, done.stdout + done.stderr
        with np.load(target) as file:
            found.append(dict(file))
    differences = apart(*found)
    assert len(differences) > 20
    assert any("running_mean" in name for name in differences)
    assert max(differences.values()) < TOLERANCE, differences


def test_mindspore_says_that_it_has_none(tmp_path):
    pytest.importorskip("mindspore")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = launch("mindspore", 2, tmp_path, "mindspore", tmp_path / "none.npz", program=program)
    assert done.returncode != 0
    assert "backend mindspore has no batch norm over all ranks: set model.norm to group" in done.stdout + done.stderr
