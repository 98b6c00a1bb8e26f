"""Archives of elevation rasters to training files of patches: :func:`prepare_dem`."""

from earthsr.data.dem_archives.plan import DemPlan
from earthsr.data.dem_archives.prepare import PreparedDem, prepare_dem

__all__ = ["DemPlan", "PreparedDem", "prepare_dem"]
