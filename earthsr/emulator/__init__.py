"""The door for couplers: the emulator of land use under the name that hosts and their configurations know.

Its code lives with its workload, in :mod:`earthsr.landuse.emulator`.
"""

from earthsr.landuse.emulator import Emulator

__all__ = ["Emulator"]
