"""How fast a configuration trains here, where the time of a step goes, and how near that is to the machine's limit.

Everything is measured through the engine that training uses, and in the same process as the peaks that it is
compared with. Nothing is written but the file that is asked for.
"""

from earthsr.check.bench.result import BenchResult, Loader, Plain, Rates, text_table
from earthsr.check.bench.run import run_bench

__all__ = ["BenchResult", "Loader", "Plain", "Rates", "run_bench", "text_table"]
