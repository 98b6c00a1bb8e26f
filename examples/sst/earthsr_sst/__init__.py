"""Sea-surface temperature, a workload of earthsr in a distribution of its own."""
