"""The Basic Model Interface of the emulator, under the name that couplers are configured with."""

from earthsr.landuse.emulator.bmi import EarthsrBmi

__all__ = ["EarthsrBmi"]
