"""Land-use maps of a whole grid, year after year: in constant memory, by one worker or many, and restarted at will."""

from earthsr.landuse.reconstruct.estimate import dry_run
from earthsr.landuse.reconstruct.plan import Options
from earthsr.landuse.reconstruct.run import reconstruct
from earthsr.landuse.sources.world_inputs import Inputs

__all__ = ["Inputs", "Options", "dry_run", "reconstruct"]
