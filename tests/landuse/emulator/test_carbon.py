"""The example that couples a carbon model with the emulator: its sums, and a run from nothing."""

import importlib.util
import math
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import REPOSITORY

pytest.importorskip("bmipy")

SCRIPT = REPOSITORY / "examples" / "carbon.py"


@pytest.fixture(scope="module")
def carbon():
    spec = importlib.util.spec_from_file_location("carbon_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_fluxes_by_hand(carbon):
    """100 km2 of forest become cropland: 160 t/ha of 10,000 ha are 1.6 TgC, of which two fifths go at once."""
    book = carbon.Bookkeeping()
    book.step(np.array([40, 22, 255]), np.array([22, 22, 255]), np.array([100.0, 50.0, 9.0]))
    assert book.fluxes[0] == (pytest.approx(0.64), 0, 0)
    book.step(np.array([22, 22]), np.array([40, 22]), np.array([100.0, 50.0]))
    assert book.fluxes[1] == (0, pytest.approx(0.96 * (1 - math.exp(-0.1))), 0)
    for _ in range(1000):
        book.step(np.array([40]), np.array([40]), np.array([100.0]))
    # All that was lost has gone, and the same has been taken up again.
    lost, decayed, uptake = np.array(book.fluxes).sum(axis=0)
    assert lost + decayed == pytest.approx(1.6, rel=1e-9)
    assert uptake == pytest.approx(-1.6, rel=1e-9)


@pytest.mark.slow
def test_the_example_runs_from_nothing(tmp_path, any_backend):
    output = tmp_path / "carbon.png"
    command = [sys.executable, str(SCRIPT), "--output", str(output), "--backend", any_backend]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes().startswith(b"\x89PNG")
    rows = [line.split() for line in done.stdout.splitlines() if line[:2] in ("19", "20")]
    assert len(rows) >= 5
    fluxes = np.array([[float(value) for value in row[1:]] for row in rows])
    assert np.allclose(fluxes[:, :3].sum(axis=1), fluxes[:, 3], atol=2e-3)
    assert (fluxes[:, 0] > 0).all(), "something is cleared every year"
    assert (np.diff(fluxes[:, 1]) > 0).any(), "what decays adds up"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["carbon.png"]
