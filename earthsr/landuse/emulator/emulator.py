"""The emulator: a trained land-use model, a region, and, by choice, the map that it has reached."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import earthsr
from earthsr.backend import Backend, Model
from earthsr.data.normalise import ChannelNormalisation
from earthsr.errors import CheckpointError, InputError
from earthsr.geo.areas import cells_of
from earthsr.geo.grid import Grid
from earthsr.landuse.classes import NODATA, ClassTable
from earthsr.landuse.emulator.forcing import (
    MemoryScenario,
    coarse_grid,
    hidden_share,
    read_forcing,
    require_year,
    years_between,
    years_trained_on,
)
from earthsr.landuse.emulator.maps import indices_of, read_map, read_protected, read_static
from earthsr.landuse.emulator.memory import MapState, MemoryFields, MemoryMaps, MemoryWorld, dataset_of
from earthsr.landuse.emulator.share import Share
from earthsr.landuse.reconstruct.chunk import Maker
from earthsr.landuse.reconstruct.ledger import add_up, yearly
from earthsr.landuse.reconstruct.plan import CHUNK, Options, Step, make_method, require_land_use, warn_of_cells
from earthsr.landuse.sources.scenario_files import channels_of_classes
from earthsr.landuse.sources.world_inputs import BBox
from earthsr.models import Precision

#: What is told of a step, of what :func:`earthsr.landuse.reconstruct.ledger.yearly` finds.
_FIGURES: Final = (
    "area_error_percent",
    "area_error_percent_without_decoder",
    "changed_percent",
    "coarse_cells_unmet",
)

_logger = logging.getLogger("earthsr")


@dataclass(frozen=True, eq=False)
class _Result:
    state: MapState
    confidence: NDArray[np.float32]
    attributes: dict[str, Any]


class Emulator:
    """A trained land-use model for one region; :meth:`load` makes it.

    Parameters
    ----------
    model : Model
        Of land-use classes.
    static, protected, fixed, bbox, match_areas, tile, overlap, chunk, batch_size, share
        As :meth:`load` has them.

    Raises
    ------
    CheckpointError
        If the model's normalisation is not one of its static fields.
    InputError
        If the model is not of land-use classes, or a field, class or option does not fit it.

    Notes
    -----
    **Stateless**: ``step(forcing, year, prior)`` needs the prior, and changes nothing here. **Stateful**: after
    ``start(map, year)``, ``step(forcing, year)`` goes on from the map that was reached; a step that fails leaves it as
    it was.

    **Years** are stepped one by one, as the model was trained, forwards or backwards. Across a gap the forcing needs an
    axis of time with all years between: these maps are made too, as ``earthsr reconstruct`` makes them.

    **Cells that keep their class**: those of the ``fixed`` classes and ``protected`` ones. Which they are is decided
    where a rollout begins, and goes with its maps as ``may_change``; a prior without it begins a rollout.

    **The same**: maps are those of ``earthsr reconstruct`` with the same inputs and options. They are the same each
    time, on the same backend, device and number of threads.

    Examples
    --------
    >>> import earthsr
    >>> static = "runs/landuse-data/archives/static.nc"
    >>> emulator = earthsr.Emulator.load("demo-landuse", static=static, backend="torch")
    """

    def __init__(
        self,
        model: Model,
        *,
        static: Any,
        protected: Any = None,
        fixed: Sequence[str] = (),
        bbox: BBox | None = None,
        match_areas: bool = True,
        tile: int | None = None,
        overlap: float = 0.25,
        chunk: int = CHUNK,
        batch_size: int | None = None,
        share: tuple[int, int] | None = None,
    ) -> None:
        self.model = model
        require_land_use(model)
        metadata, source = model.metadata, str(model.metadata.get("source", "the model"))
        self.table = ClassTable.from_json(metadata["class_table"], source)
        self.channels: tuple[str, ...] = tuple(metadata["coarse_channels"])
        self.static_channels: tuple[str, ...] = tuple(metadata["static_channels"])
        normalisation = model.normalisation
        if not isinstance(normalisation, ChannelNormalisation) or len(normalisation.static_mean) != len(
            self.static_channels
        ):
            raise CheckpointError(f"{source}: its normalisation is not one of its static fields; it is damaged")
        fields = read_static(static, self.static_channels, bbox)
        self.grid: Grid = fields.grid
        cells = metadata.get("input_cell_size_deg")
        self.forcing_grid: Grid = coarse_grid(self.grid, None if cells is None else (cells[0], cells[1]))
        self._fixed = (fixed,) if isinstance(fixed, str) else tuple(fixed)
        for name in self._fixed:
            if name not in self.table.names:
                raise InputError(f"fixed: no class {name!r}; the checkpoint knows {', '.join(self.table.names)}")
        warn_of_cells(model, self.grid)
        of_class = channels_of_classes(self.table, self.channels)
        self._scenario = MemoryScenario(self.forcing_grid, self.channels, of_class, {})
        world = MemoryWorld(self.grid, self.table, self._scenario)
        options = Options(tile, overlap, chunk, batch_size, match_areas, self._fixed, ("confidence",))
        self._method = make_method(model, world, options)
        self.share = None if share is None else Share.of(self._method, *share)
        self._protected = read_protected(protected, self.grid)
        self._mapped = np.isfinite(fields.values).all(axis=0)
        self._fields = MemoryFields(self.grid, normalisation.static(fields.values))
        self._maker = Maker(self._method, MemoryMaps(self.grid), self._fields)
        self._state: MapState | None = None
        self._dataset: Any = None
        self._complete = False
        self._warned: set[str] = set()
        self._notes: list[str] = []

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        static: Any,
        protected: Any = None,
        fixed: Sequence[str] = (),
        bbox: BBox | None = None,
        match_areas: bool = True,
        backend: str | Backend | None = None,
        device: str = "auto",
        precision: Precision | str | None = None,
        tile: int | None = None,
        overlap: float = 0.25,
        chunk: int = CHUNK,
        batch_size: int | None = None,
        share: tuple[int, int] | None = None,
    ) -> Emulator:
        """Open a checkpoint for a region.

        Parameters
        ----------
        path : str or Path
            Run folder (its best), checkpoint folder, weights file, or what else the backend opens.
        static : Dataset, mapping, str or Path
            The model's static fields, in the units of training, on the fine grid of the maps: variables of a Dataset
            or of a NetCDF file, or by name arrays or files. ``latitude`` and ``longitude`` may be left out. Their grid,
            any region or the globe, is that of the maps.
        protected : DataArray, str, Path or sequence of them, optional
            Cells that keep their class: not 0.
        fixed : sequence of str
            Classes whose cells keep their class.
        bbox : tuple of float, optional
            West, south, east, north in degrees of the part that is mapped; west beyond east crosses the dateline.
        match_areas : bool
            Make the areas of classes in each coarse cell those of the forcing.
        backend, device, precision
            As :meth:`earthsr.backend.Model.from_checkpoint` has them; precision may be its level, such as ``"O2"``.
        tile : int, optional
            Fine cells per side of a window; that of training where absent.
        overlap : float
            Share of its side that a window has in common with the next.
        chunk : int
            Fine cells per side of what is computed at once, about.
        batch_size : int, optional
            Windows at once; chosen by their size where absent.
        share : tuple of int, optional
            Rank, and number of ranks that make the region together, each in a process of its own; see :meth:`exchange`.

        Raises
        ------
        CheckpointError, BackendError
            If the checkpoint is not one of land use, or the backend is not there.
        InputError, DataError
            If static fields, masks or options do not fit.
        """
        level = Precision(precision) if isinstance(precision, str) else precision  # type: ignore[arg-type]
        model = Model.from_checkpoint(path, backend=backend, device=device, precision=level)
        emulator = cls(
            model,
            static=static,
            protected=protected,
            fixed=fixed,
            bbox=bbox,
            match_areas=match_areas,
            tile=tile,
            overlap=overlap,
            chunk=chunk,
            batch_size=batch_size,
            share=share,
        )
        # A device that is not there is told of now, and no step waits for it.
        _ = model.engine
        return emulator

    @property
    def state(self) -> Any:
        """Dataset of the map that was reached, to be kept and given to :meth:`start` again; None before the first."""
        return None if self._dataset is None else self._dataset.copy(deep=True)

    @property
    def year(self) -> int | None:
        """Year of the map that was reached."""
        return None if self._state is None else self._state.year

    @property
    def directions(self) -> tuple[str, ...]:
        """Directions in time that the model was trained in; both where it does not say."""
        return tuple(self.model.metadata.get("directions", ("forwards", "backwards")))

    @property
    def trained_years(self) -> tuple[int, int] | None:
        """First and last year that the model was trained on, where it says so."""
        return years_trained_on(self.model.metadata)

    def start(self, anchor_map: Any, year: int | None = None) -> Any:
        """Begin a rollout, or go on with one that was kept.

        Parameters
        ----------
        anchor_map : Dataset, DataArray, str or Path
            What a step returned, a map of the checkpoint's class codes, or a class raster.
        year : int, optional
            Of the map; as it says itself where absent.

        Returns
        -------
        Dataset
            The state.

        Raises
        ------
        InputError, DataError
            If the map does not fit; the state is as it was then.
        """
        state = self._state_of(anchor_map, year, "anchor map")
        dataset = self._dataset_of(state, state.classes, None, self._described(state.year))
        self._state, self._dataset, self._complete = state, dataset, True
        return self.state

    def step(self, forcing: Any, year: int, prior: Any = None) -> Any:
        """Make the map of a year.

        Parameters
        ----------
        forcing : Dataset or DataArray
            Fractions of the model's channels, 0 to 1 (units 1), on coarse cells that cover the region: a variable a
            channel, or an axis ``channel``. Latitudes may go either way. Of the year, or with an axis of time.
        year : int
            Whose map is made.
        prior : Dataset or DataArray, optional
            The map before it, which says its year; where absent the state goes on. Where there is none either, the map
            is made without a prior, if the model has learnt that.

        Returns
        -------
        Dataset
            ``land_use`` (lat, lon), codes of classes, 255 for none; ``confidence``, largest probability, NaN where
            nothing was predicted; ``may_change``; ``area`` (class, coarse_lat, coarse_lon), km2.

        Raises
        ------
        InputError, DataError
            If something does not fit; the state is as it was then.
        """
        year = require_year(year)
        before = self._state if prior is None else self._state_of(prior, None, "prior")
        if self.share is not None and prior is None and not self._complete:
            raise InputError("other ranks' cells are of an earlier year: call exchange() before each further step")
        years = self._years_to(before, year)
        land = self._land(before)
        given = read_forcing(forcing, years, self.channels, self.table, self.forcing_grid, self.grid, land, self._notes)
        if before is None:
            before = self._blank(given[years[0]], years[0])
        result = self._roll_out(before, years, given)
        shown = result.state.classes
        if self.share is not None:
            shown = np.where(self.share.own | ~result.state.free, shown, np.uint8(NODATA))
        dataset = self._dataset_of(result.state, shown, result.confidence, result.attributes)
        if prior is None:
            self._state, self._dataset, self._complete = result.state, dataset, False
            return self.state
        return dataset

    def exchange(self, land_use: NDArray[Any]) -> None:
        """Take cells that other ranks have made, where several ranks share a region.

        Parameters
        ----------
        land_use : ndarray of shape (rows, columns)
            Codes of the year that was reached, north to south: at least those of the cells that this rank reads
            (``share.reads``) and others make. 255 where a cell has no class, or is not handed over.

        Raises
        ------
        InputError, DataError
            If cells that are read are missing, or codes do not fit; the state is as it was then.

        Notes
        -----
        After a step ``land_use`` has 255 where other ranks' cells may change, and ``area`` is that of the cells that
        this rank makes: its sum over ranks is that of the region.
        """
        if self.share is None or self._state is None:
            raise InputError("exchange: no share= was given, or no rollout begun; there is nobody to exchange with")
        before = self._state
        given = indices_of(np.asarray(land_use), self.table, "exchanged map")
        classes = self.share.taken(before.classes, given, before.free)
        self._state, self._complete = MapState(before.year, classes, before.free), True

    def _dataset_of(
        self, state: MapState, shown: NDArray[np.uint8], confidence: NDArray[np.float32] | None, attributes: Any
    ) -> Any:
        """Dataset of a state; classes as shown, areas of the cells that are made here."""
        made = None if self.share is None else np.where(self.share.own, state.classes, np.uint8(NODATA))
        shown_state = MapState(state.year, shown, state.free)
        return dataset_of(shown_state, self.table, self.grid, self.forcing_grid, confidence, attributes, made)

    def _state_of(self, given: Any, year: int | None, what: str) -> MapState:
        given_map = read_map(given, self.table, self.grid, what)
        if year is not None and given_map.year is not None and require_year(year) != given_map.year:
            raise InputError(f"{what} is of {given_map.year} by its own coordinate, the year given is {year}")
        year = given_map.year if year is None else year
        if year is None:
            raise InputError(
                f"{what} does not say its year; give it a coordinate year, such as .assign_coords(year=2000)"
            )
        has = given_map.classes != NODATA
        free = given_map.free
        if self.share is not None and free is not None:
            self.share.require(given_map.classes, free)
        if free is None:
            free = ~(self._protected | np.isin(given_map.classes, self._method.fixed))
        return MapState(require_year(year), given_map.classes, free & has)

    def _years_to(self, before: MapState | None, year: int) -> tuple[int, ...]:
        """Years to be made, in order; what the model has not learnt is warned of."""
        known = self.trained_years
        if known is not None and not known[0] <= year <= known[1]:
            self._warn(
                "years", f"{year} lies outside the years that the model was trained on, {known[0]} to {known[1]}"
            )
        if before is None:
            return (year,)
        years = years_between(before.year, year)
        word = "forwards" if year > before.year else "backwards"
        if word not in self.directions:
            self._warn(
                word,
                f"{year} is stepped {word} in time, which the model was not trained to do (data.directions is "
                f"{', '.join(self.directions)}): expect drift",
            )
        return years

    def _land(self, before: MapState | None) -> NDArray[np.bool_]:
        """Cells of which the forcing has to say something: those of classes that it knows."""
        if before is None:
            return np.zeros((self.grid.rows, self.grid.columns), bool)
        lookup = np.zeros(256, bool)
        lookup[: len(self.table)] = self._method.known
        return lookup[before.classes]

    def _blank(self, fractions: NDArray[np.float32], year: int) -> MapState:
        """A map without any class, for models that need no prior: land is where fields and forcing have values."""
        share = hidden_share(self.model)
        if not share:
            why = "its checkpoint does not say that it was" if share is None else "it was not"
            raise InputError(
                f"there is no prior: give step() a prior, or start() a map first. The model can do without only where "
                f"it was trained so (data.prior_hidden above 0), and {why}"
            )
        if self._fixed or self._protected.any():
            raise InputError(
                "there is no prior, so that fixed classes and protected cells have no class to keep; give one"
            )
        rows, columns = cells_of(self.forcing_grid, self.grid, (0, 0, self.grid.rows, self.grid.columns))
        told = (fractions.sum(axis=0) > 0)[np.ix_(rows, columns)]
        classes = np.full(self._mapped.shape, NODATA, np.uint8)
        return MapState(year - 1, classes, self._mapped & told)

    def _roll_out(self, before: MapState, years: Sequence[int], given: dict[int, NDArray[np.float32]]) -> _Result:
        """Make the maps of years, the one after the other."""
        maps, maker = MemoryMaps(self.grid), self._maker
        if self.share is not None and len(years) > 1:
            raise InputError(f"{len(years)} years at once: ranks exchange cells after each; step year by year")
        chunks = self._method.lattice if self.share is None else self.share.chunks
        maps.arrays["land_use", before.year] = before.classes
        maker.maps, self._scenario.given = maps, given
        self._fields.mark(before.marks)
        last, figures = before.year, {}
        confidence = np.empty(before.classes.shape, np.float32)
        for year in years:
            confidence.fill(np.nan)
            maps.arrays["confidence", year] = confidence
            step, records = Step(year, last, None), []
            if self.share is not None:
                # Others' cells stay as they were, until they are exchanged.
                maps.arrays["land_use", year] = before.classes.copy()
            for chunk in chunks:
                chunk_maps = maker.compute(step, chunk, maker.read(step, chunk))
                maker.write(step, chunk, chunk_maps)
                records.append(chunk_maps.record)
            figures = yearly({year: add_up(records)}, self.table.names)[year]
            if last != before.year:
                del maps.arrays["land_use", last]
            last = year
        state = MapState(last, maps.arrays["land_use", last], before.free)
        attributes = self._described(last)
        attributes["direction"] = "forwards" if years[0] > before.year else "backwards"
        attributes.update({key: figures[key] for key in _FIGURES if figures.get(key) is not None})
        return _Result(state, confidence, attributes)

    def _described(self, year: int) -> dict[str, Any]:
        """Attributes of a Dataset, but for what a step found."""
        model = self.model
        return {
            "year": year,
            "checkpoint": "/".join(Path(str(model.metadata.get("source", "in memory"))).parts[-4:]),
            "backend": f"{model.backend.name} {model.backend.version()}",
            "device": str(model.engine.device),
            "precision": str(model.engine.precision),
            "areas_matched": str(self._method.options.match_areas).lower(),
            "fixed_classes": ", ".join(self._fixed),
            "earthsr_version": earthsr.__version__,
        }

    def _warn(self, about: str, text: str) -> None:
        """Warn once."""
        if about not in self._warned:
            self._warned.add(about)
            _logger.warning(text)
