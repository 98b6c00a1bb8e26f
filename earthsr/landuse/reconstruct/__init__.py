"""Land-use maps of a whole grid, year after year: in constant memory, by one process or many, and restarted at will."""

from earthsr.landuse.reconstruct.estimate import dry_run
from earthsr.landuse.reconstruct.plan import Options
from earthsr.landuse.reconstruct.run import reconstruct
from earthsr.landuse.sources.world_inputs import Inputs
from earthsr.ranks import Rank, device_of, rank_of

__all__ = ["Inputs", "Options", "Rank", "device_of", "dry_run", "rank_of", "reconstruct"]
