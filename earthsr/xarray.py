"""An accessor of xarray's arrays: ``import earthsr.xarray`` gives them ``.earthsr``.

Importing this module registers it, as is the habit of xarray's other companions; nothing else of the package does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray

from earthsr.dem.api import predict
from earthsr.drawing import plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@xarray.register_dataarray_accessor("earthsr")
class EarthsrAccessor:
    """What earthsr does with an array.

    Parameters
    ----------
    array : xarray.DataArray
        Elevation in metres, or land use with its classes, on regular axes; land use may have years.

    Examples
    --------
    >>> import xarray
    >>> import earthsr.xarray
    >>> land = xarray.open_dataset("runs/landuse-data/archives/static.nc").elevation
    >>> land.earthsr.plot(size=600).axes[0].get_xlabel()
    ''
    """

    def __init__(self, array: xarray.DataArray) -> None:
        self._array = array

    def plot(self, output: str | None = None, **options: Any) -> Figure | dict[str, Any]:
        """Draw the array; a notebook shows the figure.

        Parameters
        ----------
        output : str, optional
            A file to write in place of a figure.
        **options
            Of :func:`earthsr.plot`.
        """
        drawn: Figure | dict[str, Any] = plot(self._array, output, **options)
        return drawn

    def predict(self, model: Any, **options: Any) -> xarray.DataArray | xarray.Dataset:
        """Enlarge elevations.

        Parameters
        ----------
        model : Model, str or Path
            What enlarges, such as ``dem-3s``.
        **options
            Of :func:`earthsr.predict`.
        """
        fine: xarray.DataArray | xarray.Dataset = predict(model, self._array, **options)
        return fine
