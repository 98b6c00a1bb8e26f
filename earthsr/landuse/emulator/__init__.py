"""A trained land-use model that another program calls once a model year, in process.

:class:`Emulator` takes a year's coarse fractions and gives the year's map. :mod:`earthsr.landuse.emulator.bmi` is the
same behind the Basic Model Interface; it alone needs the package ``bmipy``. Maps are made by
:class:`earthsr.landuse.reconstruct.chunk.Maker`, as those of ``earthsr reconstruct`` are: they are the same maps.
"""

from earthsr.landuse.emulator.emulator import Emulator

__all__ = ["Emulator"]
