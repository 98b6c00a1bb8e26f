"""The ONNX backend: exported models on onnxruntime, for prediction alone. No framework is needed."""

from earthsr_onnx.backend import OnnxBackend

__all__ = ["OnnxBackend"]
