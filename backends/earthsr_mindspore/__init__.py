"""The MindSpore backend: networks, objectives and engine; so far DEM-SRNet on CPU, compiled, in float32."""

from earthsr_mindspore.backend import MindSporeBackend

__all__ = ["MindSporeBackend"]
