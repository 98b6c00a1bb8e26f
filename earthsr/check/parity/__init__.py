"""Evidence that two backends compute the same thing: measured, compared, written down.

A record holds what one backend computes for one model on one set of inputs: outputs of all layers, the loss, all
gradients, Adam's moments after one and after n steps, the course of the loss, a predicted raster and its scores.
Records are compared with each other: of two backends in one process, or of two machines that never meet.
"""

from earthsr.check.parity.compare import Comparison, Row, compare, write_report
from earthsr.check.parity.measure import Record, measure, read_record, write_record
from earthsr.check.parity.run import ParityRun, run_parity

__all__ = [
    "Comparison",
    "ParityRun",
    "Record",
    "Row",
    "compare",
    "measure",
    "read_record",
    "run_parity",
    "write_record",
    "write_report",
]
