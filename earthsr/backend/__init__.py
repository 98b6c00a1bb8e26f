"""The interface between earthsr and a framework: what a backend and an engine are, and how they are found.

A backend is an object, not a global: several live in one process.
"""

from earthsr.backend.exported import ExportedEngine, exported_metadata, is_exported, read_model
from earthsr.backend.framework import Backend, BackendInfo, Device, ExportedBackend, WeightsBackend
from earthsr.backend.interface import Engine, Meter, Pending, StepValues, TrainingEngine
from earthsr.backend.model import Model
from earthsr.backend.registry import (
    available_backends,
    choose_backend,
    choose_runner,
    exported_backends,
    exported_suffixes,
    get_backend,
    training_backends,
    weights_backends,
)

__all__ = [
    "Backend",
    "BackendInfo",
    "Device",
    "Engine",
    "ExportedBackend",
    "ExportedEngine",
    "Meter",
    "Model",
    "Pending",
    "StepValues",
    "TrainingEngine",
    "WeightsBackend",
    "available_backends",
    "choose_backend",
    "choose_runner",
    "exported_backends",
    "exported_metadata",
    "exported_suffixes",
    "get_backend",
    "is_exported",
    "read_model",
    "training_backends",
    "weights_backends",
]
