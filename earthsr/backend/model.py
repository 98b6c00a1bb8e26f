"""A model: spec, weights and normalisation, with the engine that runs it made when it is first needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthsr.backend.exported import is_exported, read_model
from earthsr.backend.framework import Backend
from earthsr.backend.interface import Engine, Pending, TrainingEngine
from earthsr.backend.registry import choose_backend, choose_runner, training_backends
from earthsr.data.normalise import AnyNormalisation, Normalisation, read_normalisation
from earthsr.errors import BackendError, CheckpointError, InputError, already_there
from earthsr.geo.voids import fill_voids
from earthsr.models import NetworkSpec, Precision
from earthsr.models.weights import Weights, write_weights
from earthsr.store import make_folder


class Model:
    """What a script holds: takes metres, gives metres.

    Parameters
    ----------
    spec : NetworkSpec
        The network.
    weights : dict of str to ndarray
        Its parameters.
    metadata : mapping
        What the weights file carries beside them: ``normalisation``, ``task``, ``units`` and others.
    backend : str or Backend, optional
        Where absent, the only one installed.
    device : str
        ``auto``, ``cpu``, ``gpu`` or ``ascend``.
    precision : Precision, optional
        O0 where absent.
    graph : bool, optional
        Whether steps are compiled; what the backend does best where absent.
    distribute : bool
        Whether it trains together with the other processes that a launcher has started.
    exported : Path, optional
        File of an exported model, which is run in the place of ``weights``.

    Examples
    --------
    >>> import earthsr
    >>> model = earthsr.Model.from_checkpoint("demo-dem", backend="torch")
    >>> model.backend.name
    'torch'
    """

    def __init__(
        self,
        spec: NetworkSpec,
        weights: Weights,
        metadata: Mapping[str, Any] | None = None,
        *,
        backend: str | Backend | None = None,
        device: str = "auto",
        precision: Precision | None = None,
        graph: bool | None = None,
        distribute: bool = False,
        exported: Path | None = None,
    ) -> None:
        self.spec = spec
        self._weights = weights
        self._exported = exported
        self.metadata = dict(metadata or {})
        self.backend: Backend = choose_backend(backend) if exported is None else choose_runner(exported, backend)
        self.device = device
        self.precision = precision or Precision()
        self.graph = graph
        self.distribute = distribute
        self._engine: Engine | None = None

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        backend: str | Backend | None = None,
        device: str = "auto",
        precision: Precision | None = None,
    ) -> Model:
        """Open a run folder (its best), a checkpoint folder, a weights file or an exported model.

        Parameters
        ----------
        path : str or Path
            What to open.
        backend : str or Backend, optional
            The backend that computes; the only one installed where absent.
        device : str
            ``auto``, ``cpu``, ``gpu`` or ``ascend``.
        precision : Precision, optional
            Float32 where absent.

        Raises
        ------
        CheckpointError
            If there is none, or it is damaged.
        BackendError
            If the backend is not there.
        """
        file = read_model(path)
        assert file.path is not None
        return cls(
            file.spec,
            file.weights,
            {**file.metadata, "source": str(file.path)},
            backend=backend,
            device=device,
            precision=precision,
            exported=file.path if is_exported(file.path) else None,
        )

    def __repr__(self) -> str:
        """Name what it is, where it came from and what runs it."""
        source = self.metadata.get("source", "in memory")
        size = f"{self.spec.parameter_count:,} parameters"
        scale = f", {self.spec.scale} x" if hasattr(self.spec, "scale") else ""
        return f"<earthsr.Model {self.spec.kind}{scale}, {size}, {self.backend.name} on {self.device}, from {source}>"

    def __call__(self, inputs: NDArray[np.floating] | Mapping[str, NDArray]) -> NDArray[np.float32]:
        """Predict.

        Parameters
        ----------
        inputs : ndarray of shape (h, w), (N, h, w) or (N, C, h, w), or mapping of str to ndarray
            Elevation in metres, NaN where there is none; or a network's own input fields, normalised, (N, ...).

        Returns
        -------
        ndarray
            Elevation in metres, of as many dimensions, NaN where the input is; or what the network gives, (N, C, H, W).
            float32.

        Raises
        ------
        CheckpointError
            If an array is given to a model of other fields than elevation.
        InputError
            If it has another number of dimensions.

        Examples
        --------
        >>> import earthsr, numpy
        >>> model = earthsr.Model.from_checkpoint("demo-dem", backend="torch")
        >>> model(numpy.zeros((16, 16), "float32")).shape
        (80, 80)
        """
        if isinstance(inputs, Mapping):
            return self.submit_fields(inputs).result()
        values = np.asarray(inputs, np.float32)
        if not 2 <= values.ndim <= 4:
            raise InputError(f"elevation has shape {values.shape}, expected (h, w), (N, h, w) or (N, C, h, w)")
        whole = values.reshape((1,) * (4 - values.ndim) + values.shape) if values.ndim != 3 else values[:, None]
        result = self.submit(whole).result()
        void = np.isnan(whole).any(axis=1, keepdims=True)
        if void.any():
            # What the network was given there was filled from around.
            scale = result.shape[-1] // whole.shape[-1]
            result = np.where(void.repeat(scale, axis=-2).repeat(scale, axis=-1), np.float32(np.nan), result)
        return result if values.ndim == 4 else result[:, 0] if values.ndim == 3 else result[0, 0]

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write weights, normalisation and all else that prediction needs, for any backend.

        Parameters
        ----------
        path : str or Path
            A file ``.safetensors``, or a folder, which gets ``weights.safetensors``.
        overwrite : bool
            Replace what is there.

        Returns
        -------
        Path
            The file; wherever a checkpoint is named it, or its folder, may stand.

        Raises
        ------
        InputError
            If it is there already, or the disk does not take it.
        BackendError
            If the model is an exported one, whose weights are part of its graph.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            path = path / "weights.safetensors"
        if path.exists() and not overwrite:
            raise already_there(path)
        make_folder(path.parent)
        metadata = {key: value for key, value in self.metadata.items() if key != "source"}
        return write_weights(path, self.spec, self.weights, metadata)

    @property
    def computed_by(self) -> str:
        """Framework, version, device and precision that compute, in words: for provenance."""
        return f"{self.backend.name} {self.backend.version()} ({self.engine.device}, {self.engine.precision})"

    @property
    def exported(self) -> Path | None:
        """File of an exported model; None of a checkpoint."""
        return self._exported

    @property
    def engine(self) -> Engine:
        """The engine; made on first use."""
        if self._engine is None:
            options: dict[str, Any] = {"device": self.device, "precision": self.precision}
            if self._exported is not None:
                runner = choose_runner(self._exported, self.backend)
                self._engine = runner.open_engine(self._exported, self.spec, **options)
            else:
                options |= {"graph": self.graph, "distribute": self.distribute}
                self._engine = choose_backend(self.backend).engine(self.spec, self._weights, **options)
        return self._engine

    @property
    def training_engine(self) -> TrainingEngine:
        """The engine, where it is one that learns and gives its weights back.

        Raises
        ------
        BackendError
            If it predicts only.
        """
        if self._exported is None and isinstance(self.engine, TrainingEngine):
            return self.engine
        others = ", ".join(name for name in training_backends() if name != self.backend.name)
        if self._exported is None:
            raise BackendError(f"backend {self.backend.name} predicts only; choose one that trains ({others})")
        raise BackendError(
            f"{self._exported}: is an exported model, made for prediction: it cannot be trained, and its weights are "
            "part of its graph; use the checkpoint that it was exported from, with a backend that trains "
            f"({', '.join(training_backends())})"
        )

    @property
    def weights(self) -> Weights:
        """Parameters under canonical names, as they are now."""
        if self._exported is None and not isinstance(self._engine, TrainingEngine):
            return self._weights
        return self.training_engine.export_state().weights

    def load_weights(self, weights: Weights) -> None:
        """Take over weights.

        Raises
        ------
        CheckpointError
            If names or shapes do not fit.
        """
        self.training_engine.load_weights(weights)

    @property
    def normalisation(self) -> AnyNormalisation:
        """The numbers that the weights were trained with.

        Raises
        ------
        CheckpointError
            If the model has none yet: it was neither trained nor loaded.
        """
        values = self.metadata.get("normalisation")
        if values is None:
            raise CheckpointError("the model has no normalisation yet: train it or load a checkpoint first")
        return read_normalisation(values, str(self.metadata.get("source", "model")))

    @normalisation.setter
    def normalisation(self, value: AnyNormalisation) -> None:
        self.metadata["normalisation"] = value.to_dict()

    @property
    def trained_on(self) -> Mapping[str, Any]:
        """What the weights' file says beside them: channels, units, cell sizes, where it came from."""
        return self.metadata

    def submit(
        self, coarse: NDArray[np.float32], pad_to: int | None = None, offset: float | None = None
    ) -> Pending[NDArray[np.float32]]:
        """Start a prediction.

        Parameters
        ----------
        coarse : ndarray of shape (N, C, h, w)
            Elevation in metres; NaN is filled from its neighbours (:mod:`earthsr.geo.voids`).
        pad_to : int, optional
            Run a batch of this size, so that one compiled graph serves batches of any smaller size.
        offset : float, optional
            Metres that normalisation takes off, where patches are parts of one raster; else its own choice.

        Returns
        -------
        Pending of ndarray of shape (N, C, h * scale, w * scale)
            Elevation in metres, float32.

        Raises
        ------
        CheckpointError
            If the weights came without a normalisation.
        """
        normalisation = self.normalisation
        if not isinstance(normalisation, Normalisation):
            raise CheckpointError(
                f"{self.metadata.get('source', 'the model')}: is a model of other fields "
                f"({', '.join(field.name for field in self.spec.inputs)}); this asks for one of elevations"
            )
        coarse = np.asarray(coarse, np.float32)
        offsets = normalisation.offsets(coarse)
        if offset is not None:
            offsets = np.full_like(offsets, offset)
        inputs = np.nan_to_num(normalisation.apply(fill_voids(coarse), offsets), nan=0.0)
        pending = self.submit_fields({self.spec.inputs[0].name: inputs}, pad_to)
        return Pending(lambda: normalisation.undo(pending.result(), offsets))

    def submit_fields(self, inputs: Mapping[str, NDArray], pad_to: int | None = None) -> Pending[NDArray[np.float32]]:
        """Start a forward pass on the network's own input fields.

        Parameters
        ----------
        inputs : mapping of str to ndarray of shape (N, …)
            Normalised fields of the spec.
        pad_to : int, optional
            Run a batch of this size, so that one compiled graph serves batches of any smaller size.

        Returns
        -------
        Pending of ndarray of shape (N, C, H, W)
            Normalised values, or probabilities of classes, float32.
        """
        count = len(next(iter(inputs.values())))
        if pad_to and pad_to > count:
            inputs = {
                name: np.concatenate([value, np.zeros((pad_to - count, *value.shape[1:]), value.dtype)])
                for name, value in inputs.items()
            }
        pending = self.engine.submit(inputs)
        return Pending(lambda: pending.result()[:count])
