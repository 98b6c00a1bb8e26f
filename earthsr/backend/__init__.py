"""The interface between earthsr and a framework: what a backend and an engine are, and how they are found.

A backend is an object, not a global: several live in one process.
"""

from earthsr.backend.interface import Backend, BackendInfo, Device, Engine, Pending, StepValues
from earthsr.backend.model import Model
from earthsr.backend.registry import available_backends, choose_backend, get_backend

__all__ = [
    "Backend",
    "BackendInfo",
    "Device",
    "Engine",
    "Model",
    "Pending",
    "StepValues",
    "available_backends",
    "choose_backend",
    "get_backend",
]
