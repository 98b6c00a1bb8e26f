"""The contract, in prose.

Two backends that are given one spec, one set of weights, one optimiser and one sequence of batches compute the same
thing: every layer's output, the loss, every gradient, Adam's moments after one step and after twenty, the course of
the loss, a predicted raster in metres and its scores. "The same" is what ``earthsr.check.parity_compare`` says for
each quantity, with the reason. The same holds for each backend alone against records in float64, which a NumPy program
made that shares no code with either, so that a machine with one framework can check itself. It holds whichever
framework is imported first, and in separate processes.

The matrix is cases of ``tests.check.parity.cases`` x quantities; ``EARTHSR_SHOW_PARITY=1`` prints the figures reached.
"""

import contextlib
import json
import os
import subprocess
import sys

import pytest

from earthsr.backend import get_backend
from earthsr.check.parity import compare, measure, read_record, write_record
from earthsr.check.parity_compare import QUANTITIES, text_table
from tests.check.parity.cases import CASES, RECORDS
from tests.conftest import BACKENDS, REPOSITORY, backend_parameters, installed

both = pytest.mark.skipif(not all(map(installed, BACKENDS)), reason="needs both backends")
_measured = {}

#: The quick run takes one case, on PyTorch: MindSpore compiles three graphs for each.
matrix = [name if name == "mindearth" else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
reference_parameters = [
    pytest.param(*p.values, marks=[*p.marks, pytest.mark.slow] if p.values == ("mindspore",) else p.marks)
    for p in backend_parameters()
]


def measured(backend, name):
    """The record of a case on a backend; every one is computed once."""
    if (backend, name) not in _measured:
        case = CASES[name]
        _measured[backend, name] = measure(
            get_backend(backend),
            case.spec,
            case.weights,
            case.inputs,
            case.objective,
            case.optimizer,
            case.rates,
            device="cpu",
        )
    return _measured[backend, name]


def assert_agree(a, b, capsys):
    comparison = compare(a, b)
    with capsys.disabled() if os.environ.get("EARTHSR_SHOW_PARITY") else contextlib.nullcontext():
        print("\n" + text_table(comparison))
    assert comparison.agrees, text_table(comparison)
    assert [row.quantity for row in comparison.worst()] == [quantity.name for quantity in QUANTITIES]
    return comparison


@pytest.mark.parametrize("name", matrix)
@pytest.mark.parametrize("backend", reference_parameters)
def test_a_backend_agrees_with_float64(backend, name, capsys):
    assert_agree(measured(backend, name), read_record(RECORDS / f"{name}.safetensors"), capsys)


@both
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_backends_agree_with_each_other(name, capsys):
    comparison = assert_agree(measured("torch", name), measured("mindspore", name), capsys)
    # The two do not share a kernel: not everything can be equal to the last bit.
    assert any(row.difference > 0 for row in comparison.rows)


PROCESS = """
import sys
for name in sys.argv[2:]:
    __import__(name)
from earthsr.backend import get_backend
from earthsr.check.parity import measure, write_record
from tests.check.parity.cases import CASES
case = CASES["mindearth"]
for backend in ("torch", "mindspore"):
    record = measure(get_backend(backend), case.spec, case.weights, case.inputs, case.objective, case.optimizer,
                     case.rates, device="cpu")
    write_record(f"{sys.argv[1]}-{backend}.safetensors", record)
"""


@both
@pytest.mark.slow
@pytest.mark.parametrize("order", [("torch", "mindspore"), ("mindspore", "torch")], ids="-then-".join)
def test_the_order_of_imports_changes_nothing(tmp_path, order, capsys):
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, script, tmp_path / "r", *order], check=True, env=environment, cwd=tmp_path)
    records = {name: read_record(tmp_path / f"r-{name}.safetensors") for name in BACKENDS}
    assert_agree(records["torch"], records["mindspore"], capsys)
    for name in BACKENDS:
        # Another process, the same machine: a record that went through a file agrees with one that did not.
        assert_agree(records[name], measured(name, "mindearth"), capsys)


@pytest.mark.parametrize("quantity", [q.name for q in QUANTITIES if q.name not in ("loss", "scores")])
def test_a_wrong_array_is_found(quantity, tmp_path):
    """A difference of ten times the tolerance in one array is seen, and named."""
    record = read_record(RECORDS / "paper.safetensors")
    bound = next(q.tolerance for q in QUANTITIES if q.name == quantity)
    name, array = next(iter(record.arrays[quantity].items()))
    changed = array * (1 + 10 * bound)
    broken = {**record.arrays, quantity: {**record.arrays[quantity], name: changed}}
    comparison = compare(type(record)(record.about, broken), record)
    assert not comparison.agrees
    assert [(row.quantity, row.name) for row in comparison.rows if not row.agrees] == [(quantity, name)]
    assert "TOO LARGE" in text_table(comparison)
    json.dumps(comparison.to_dict(), allow_nan=False)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_never_agrees(bad):
    record = read_record(RECORDS / "paper.safetensors")
    array = record.arrays["layers"]["head"].copy()
    array[3] = bad
    broken = {**record.arrays, "layers": {**record.arrays["layers"], "head": array}}
    assert not compare(type(record)(record.about, broken), record).agrees
    assert not compare(record, type(record)(record.about, broken)).agrees


def test_a_record_survives_its_file(tmp_path):
    record = read_record(RECORDS / "paper.safetensors")
    again = read_record(write_record(tmp_path / "r.safetensors", record))
    assert again.about == record.about
    assert all(row.difference == 0 for row in compare(again, record).rows)
