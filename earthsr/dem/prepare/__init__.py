"""Archives of elevation rasters to training files of patches: :func:`prepare_dem`."""

from earthsr.dem.prepare.plan import DemPlan
from earthsr.dem.prepare.prepare import PreparedDem, prepare_dem

__all__ = ["DemPlan", "PreparedDem", "prepare_dem"]
