"""What a framework offers: a backend, which makes engines. Finding backends is in :mod:`earthsr.backend.registry`.

A :class:`WeightsBackend` builds networks of weights, an :class:`ExportedBackend` runs exported models; one may be both.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from earthsr.backend.interface import Engine, Meter, TrainingEngine
from earthsr.errors import BackendError
from earthsr.models import NetworkSpec, Precision, WeightsFile
from earthsr.models.weights import Weights


@dataclass(frozen=True)
class Device:
    """A kind of device as a backend sees it on this machine."""

    name: str
    """``cpu``, ``gpu`` or ``ascend``."""
    available: bool
    """Whether it can be computed on."""
    detail: str = ""
    """Model and count where available, else the reason why not."""


@dataclass(frozen=True)
class BackendInfo:
    """What a backend can do here; what it does not support is data, with the reason."""

    name: str
    """As ``--backend`` has it."""
    framework: str
    """Its package."""
    version: str
    """Of the framework."""
    devices: tuple[Device, ...]
    """All kinds that it knows, those that are not here too."""
    precisions: Mapping[str, str]
    """What each ``amp_level`` means on the best device here."""
    unsupported: Mapping[str, str] = field(default_factory=dict)
    """What it cannot do, and why."""
    unexercised: Mapping[str, str] = field(default_factory=dict)
    """What is written from documentation and was never run by this project's tests."""
    url: str = ""
    """Where the framework is documented."""


class Backend(ABC):
    """A framework. Making one imports nothing; its methods import the framework."""

    name: ClassVar[str]
    framework: ClassVar[str]
    """Name of the package that has to be installed."""
    url: ClassVar[str] = ""

    @classmethod
    def installed(cls) -> bool:
        """Whether the framework can be found, without importing it."""
        try:
            return importlib.util.find_spec(cls.framework) is not None
        except (ImportError, ValueError):  # hidden by a hook of the import system, or half removed
            return False

    @classmethod
    def version(cls) -> str:
        """Version of the framework, without importing it."""
        try:
            return importlib.metadata.version(cls.framework)
        except importlib.metadata.PackageNotFoundError:
            return "unknown"

    @abstractmethod
    def describe(self) -> BackendInfo:
        """Say what this backend can do on this machine, and what not and why."""


class WeightsBackend(Backend):
    """A backend that builds networks and loads weights into them."""

    file_suffixes: ClassVar[tuple[str, ...]] = ()
    """Suffixes of the framework's own weights files, which :meth:`read_file` and :meth:`write_file` know."""
    export_suffixes: ClassVar[tuple[str, ...]] = ()
    """Suffixes of the exported models that :meth:`export` writes."""

    @abstractmethod
    def engine(
        self,
        spec: NetworkSpec,
        weights: Weights,
        *,
        device: str = "auto",
        precision: Precision | None = None,
        graph: bool | None = None,
        distribute: bool = False,
    ) -> Engine:
        """Build the network of ``spec`` with ``weights`` on a device.

        Parameters
        ----------
        spec : NetworkSpec
            The network.
        weights : dict of str to ndarray
            All parameters of the spec, float32.
        device : str
            ``auto`` (the best that is there), ``cpu``, ``gpu`` (or ``cuda``) or ``ascend``; a number after a colon,
            as in ``gpu:1``, says which one where there are several.
        precision : Precision, optional
            O0 where absent.
        graph : bool, optional
            Compile steps into graphs, or run them operator by operator; what the backend does best where absent.
        distribute : bool
            Train together with the other processes that a launcher has started; each has an engine of its own.

        Raises
        ------
        BackendError
            If device or precision is not supported here; the message says what is.
        """

    def training_engine(
        self,
        spec: NetworkSpec,
        weights: Weights,
        *,
        device: str = "auto",
        precision: Precision | None = None,
        graph: bool | None = None,
    ) -> TrainingEngine:
        """Return :meth:`engine`, of one process alone, where it is one that learns.

        Parameters
        ----------
        spec, weights, device, precision, graph
            As :meth:`engine` takes them.

        Returns
        -------
        TrainingEngine
            The engine.

        Raises
        ------
        BackendError
            If it is not.
        """
        engine = self.engine(spec, weights, device=device, precision=precision, graph=graph)
        if not isinstance(engine, TrainingEngine):
            raise BackendError(f"backend {self.name} predicts only; choose a backend that trains with --backend")
        return engine

    def meter(self, engine: TrainingEngine) -> Meter:
        """Return what measures an engine of this backend: see :mod:`earthsr.check.bench`.

        Parameters
        ----------
        engine : TrainingEngine
            Of this backend.

        Raises
        ------
        BackendError
            If the backend has no such thing.
        """
        raise BackendError(f"backend {self.name} cannot be measured: it does not tell the phases of a step apart")

    def read_file(self, path: Path) -> tuple[dict[str, NDArray], dict[str, str]]:
        """Read arrays and metadata of a file in the framework's own format, without running anything that it holds.

        Parameters
        ----------
        path : Path
            The file.

        Returns
        -------
        arrays, metadata : dict of str to ndarray, dict of str to str
            Tensors of any shape under the names that they have in the file, and texts.

        Raises
        ------
        CheckpointError
            If it is damaged or holds more than weights.
        BackendError
            If the framework has no format of its own.
        """
        raise BackendError(f"backend {self.name} has no format of its own; {path} has to be converted elsewhere")

    def write_file(self, path: Path, weights: Weights, packed: Mapping[str, str]) -> None:
        """Write arrays and metadata in the framework's own format, to a path that nobody looks at yet.

        Parameters
        ----------
        path : Path
            Where to.
        weights : dict of str to ndarray
            Float32 arrays of any shape, by the names that they get.
        packed : mapping of str to str
            Texts that travel with them.

        Raises
        ------
        BackendError
            If the framework has no format of its own.
        """
        raise BackendError(f"backend {self.name} has no format of its own; write {path} as .safetensors")

    def export(self, file: WeightsFile, path: Path, *, opset: int | None = None) -> dict[str, Any]:
        """Write a model that runs without this backend's code, to a path that nobody looks at yet.

        It takes the spec's inputs under their names, normalised as :meth:`Engine.submit` takes them, with free batch,
        height and width, and gives what :meth:`Engine.submit` gives: probabilities where the spec has a softmax.

        Parameters
        ----------
        file : WeightsFile
            Spec, weights and metadata, which the exported model carries too: see :func:`exported_metadata`.
        path : Path
            Destination; its suffix says the format.
        opset : int, optional
            Version of ONNX's operators; the exporter's own choice where absent.

        Returns
        -------
        dict
            How it was made: ``exporter``, ``opset``, ``output``; the same goes into the metadata.

        Raises
        ------
        BackendError
            If the exporter cannot write this network; the message says why and what can.
        """
        raise BackendError(f"backend {self.name} exports no models; {path} has to be written by another one")


class ExportedBackend(Backend):
    """A backend that runs exported models."""

    model_suffixes: ClassVar[tuple[str, ...]] = ()
    """Their suffixes."""

    @abstractmethod
    def read_model(self, path: Path) -> tuple[NetworkSpec, dict[str, Any]]:
        """Read spec and metadata of an exported model; no framework is needed.

        Parameters
        ----------
        path : Path
            The exported model.

        Returns
        -------
        spec, metadata : NetworkSpec, dict
            What it is, and what travels with its weights.

        Raises
        ------
        CheckpointError
            If it is damaged, or earthsr did not write it.
        """

    @abstractmethod
    def open_engine(
        self, path: Path, spec: NetworkSpec, *, device: str = "auto", precision: Precision | None = None
    ) -> Engine:
        """Open an exported model for prediction.

        Parameters
        ----------
        path : Path
            The exported model.
        spec : NetworkSpec
            What :meth:`read_model` found in it.
        device : str
            As the command line takes it.
        precision : Precision, optional
            The model's own where absent.

        Raises
        ------
        BackendError
            If the device is not there, or another precision is wanted than the model's own, float32.
        CheckpointError
            If the framework cannot load the file.
        """
