"""The parts of tools/benchmark_dem.py: what is asked for, which stages that makes, running them, and what came out."""
