"""A synthetic world: terrain, climate, land use that grows by rules, and leaf area. Nothing in it was observed."""

from earthsr.samples.world.world import SyntheticWorld, WorldSpec

__all__ = ["SyntheticWorld", "WorldSpec"]
