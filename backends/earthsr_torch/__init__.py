"""The PyTorch backend: networks, objectives and engine on CPU and CUDA."""

from earthsr_torch.backend import TorchBackend

__all__ = ["TorchBackend"]
