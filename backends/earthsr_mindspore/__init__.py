"""The MindSpore backend: networks, objectives and engine on CPU and Ascend, compiled into graphs."""

from earthsr_mindspore.backend import MindSporeBackend

__all__ = ["MindSporeBackend"]
