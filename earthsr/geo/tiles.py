"""A raster as a folder of files, one for so many degrees, named by their south-western corners as SRTM's are.

Over them lie a VRT, by which GDAL and QGIS see them as one raster, and a STAC catalogue, by which others find them.
rasterio has no builder of VRTs, and the few lines of XML that these need are written here.
"""

from __future__ import annotations

import datetime
import functools
import html
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import InputError, geo_module
from earthsr.geo import cog
from earthsr.geo.cf_write import plain_attributes
from earthsr.geo.crs import parse_crs
from earthsr.geo.grid import Window
from earthsr.geo.pieces import PieceStore
from earthsr.geo.raster import SOURCE_BAND, Georeference
from earthsr.geo.writers import GeoTiffSink
from earthsr.store import disk_errors, write_text

#: Cells per side of a tile, at most: one is computed at once.
_MOST_CELLS: Final = 8192
_LEAST_CELLS: Final = 8
#: Part of a cell by which its centre may lie beside an edge of a tile and be on it.
_ON: Final = 1e-4
#: Name of the folder of finished tiles while they are made, and of what lies over them.
_WHOLE: Final = "whole"
COLLECTION: Final = "collection.json"
_EXTENSIONS: Final = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
)


class _Tile(NamedTuple):
    name: str
    window: Window
    """Columns may lie beyond the last one of a raster that goes round the globe."""


def _corner(latitude: float, longitude: float, digits: int) -> str:
    north, east = abs(latitude), abs(longitude)
    wide = digits + 1 if digits else 0
    return (
        f"{'N' if latitude >= 0 else 'S'}{north:0{2 + wide}.{digits}f}"
        f"{'E' if longitude >= 0 else 'W'}{east:0{3 + wide}.{digits}f}"
    )


def _lattice(grid: Georeference, degrees: float) -> list[list[_Tile]]:
    """Tiles of a raster, rows of them from north to south; a cell belongs to the tile that its centre lies in."""
    digits = len(f"{degrees:.6f}".rstrip("0").partition(".")[2])
    slack, (west, south, east, north) = 1e-9, grid.bounds
    rows = []
    low, high = math.floor(south / degrees + slack), math.ceil(north / degrees - slack)
    low, high = max(low, round(-90 / degrees)), min(high, round(90 / degrees))
    first = 0
    for j in range(high - 1, low - 1, -1):
        # The first row whose centre lies south of the tile; cells on a pole belong to the last tile.
        end = math.floor((grid.north - j * degrees) / grid.cell_y - 0.5 + _ON) + 1
        end = grid.rows if j == low else min(max(end, first), grid.rows)
        rows.append((j * degrees, first, end))
        first = end
    if grid.periodic:
        columns = range(round(-180 / degrees), round(180 / degrees))
    else:
        columns = range(math.floor(west / degrees + slack), math.ceil(east / degrees - slack))
    starts = [math.ceil((i * degrees - grid.west) / grid.cell_x - 0.5 - _ON) for i in (*columns, columns.stop)]
    if not grid.periodic:
        starts = [min(max(start, 0), grid.columns) for start in starts]
    turn = -grid.columns * math.floor(starts[0] / grid.columns) if grid.periodic else 0
    tiles = []
    for latitude, top, bottom in rows:
        line = []
        for i, left, right in zip(columns, starts, starts[1:], strict=False):
            longitude = (i * degrees + 180) % 360 - 180
            if bottom > top and right > left:
                window = Window(top, left + turn, bottom - top, right - left)
                line.append(_Tile(_corner(latitude, longitude, digits), window))
        if line:
            tiles.append(line)
    return tiles


class TilePieces(PieceStore):
    """Tiles of so many degrees, each a cloud-optimised GeoTIFF; a piece is some of them.

    Parameters
    ----------
    folder, target, georeference, bands, block, side
        As of :class:`~earthsr.geo.pieces.PieceStore`.
    degrees : float
        Per side of a tile; of which 180 is a multiple.
    attributes : Mapping
        Provenance that is known before anything is computed; written into every tile.
    when : float
        Seconds since the epoch that stand in the catalogue, which has to have a time.

    Raises
    ------
    InputError
        If the raster has no longitudes and latitudes, or the tiles do not fit it.
    """

    void = GeoTiffSink.void

    def __init__(
        self,
        folder: Path,
        target: Path,
        georeference: Georeference,
        bands: Sequence[str],
        block: int,
        side: int,
        *,
        degrees: float,
        attributes: Mapping[str, Any],
        when: float,
    ) -> None:
        super().__init__(folder, target, georeference, bands, block, side)
        if target.suffix:
            raise InputError(f"{target}: --tiles writes a folder of tiles; give a name without {target.suffix}")
        if not georeference.geographic:
            raise InputError("--tiles are of degrees, and the raster is projected; leave it out, or rio warp it")
        if not (math.isfinite(degrees) and degrees > 0 and abs(180 / degrees - round(180 / degrees)) < 1e-9):
            raise InputError(f"--tiles is {degrees:g}, expected degrees of which 180 is a multiple, such as 1 or 5")
        cells = degrees / min(georeference.cell_x, georeference.cell_y)
        if not _LEAST_CELLS <= cells <= _MOST_CELLS:
            raise InputError(
                f"--tiles {degrees:g}: a tile would have {cells:.0f} cells a side, expected {_LEAST_CELLS} to "
                f"{_MOST_CELLS}"
            )
        self.degrees, self.attributes, self.when = degrees, dict(attributes), when
        self.together = max(round(side / cells), 1)
        """Tiles per side of a piece."""

    @property
    def _path(self) -> Path:
        return self.folder / _WHOLE

    def create(self) -> None:
        """Make the folder of tiles."""
        with disk_errors(self.target):
            self._path.mkdir(exist_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        # 64,800 tiles of a globe are sooner made than sent.
        return {key: value for key, value in self.__dict__.items() if key != "_pieces"}

    @functools.cached_property
    def _pieces(self) -> dict[Window, list[_Tile]]:
        """Tiles of each piece."""
        lattice, count = _lattice(self.georeference, self.degrees), self.together
        pieces = {}
        for top in range(0, len(lattice), count):
            for left in range(0, len(lattice[top]), count):
                tiles = [tile for line in lattice[top : top + count] for tile in line[left : left + count]]
                first, last = tiles[0].window, tiles[-1].window
                rows, columns = last.row + last.rows - first.row, last.column + last.columns - first.column
                pieces[Window(first.row, first.column, rows, columns)] = tiles
        return pieces

    def windows(self) -> list[Window]:
        """Give the pieces, row by row."""
        return list(self._pieces)

    def put(self, window: Window, values: NDArray[np.float32]) -> tuple[str, ...]:
        """Write the tiles of a piece; one without any value is not there."""
        files = []
        scratch = self.folder / f"tiles-{window.row}-{window.column}"
        with disk_errors(self.target):
            for tile in self._pieces[window]:
                name = f"{_WHOLE}/{tile.name}.tif"
                row, column, rows, columns = tile.window
                row, column = row - window.row, column - window.column
                part = values[:, row : row + rows, column : column + columns]
                files.append(name)
                if np.isfinite(part[0]).any():
                    scratch.mkdir(exist_ok=True)
                    self._write(scratch, tile, np.ascontiguousarray(part), self.folder / name)
                else:
                    (self.folder / name).unlink(missing_ok=True)
            shutil.rmtree(scratch, ignore_errors=True)
        return tuple(files)

    def _write(self, scratch: Path, tile: _Tile, values: NDArray[np.float32], path: Path) -> None:
        side = cog.TILE
        while side < max(values.shape[1:]):
            side *= 2
        (scratch / "piece").write_bytes(cog.pack(values, 0, 0, side, self.bands, self.nodata))
        whole = scratch / path.name
        grid = self._place(tile)
        cog.assemble(whole, [scratch / "piece"], [(0, 0)], side, grid, self.bands, self.nodata, self.attributes)
        os.replace(whole, path)

    def _place(self, tile: _Tile) -> Georeference:
        """Where a tile lies, with longitudes that count from -180."""
        grid = self.georeference.part(tile.window)
        middle = grid.west + grid.columns * grid.cell_x / 2
        return replace(grid, west=grid.west - 360 * math.floor((middle + 180) / 360))

    def finish(self, windows: Sequence[Window], attributes: Mapping[str, Any]) -> Path:
        """Write a VRT and a catalogue over the tiles."""
        tiles = [tile for some in self._pieces.values() for tile in some]
        there = [tile for tile in tiles if (self._path / f"{tile.name}.tif").is_file()]
        with disk_errors(self.target):
            for entry in self._path.iterdir():  # of a run that was killed when it did this
                if entry.suffix != ".tif":
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            write_text(self._path / f"{self.target.name}.vrt", self._vrt(there, attributes))
            self._catalogue(there, attributes)
        return self._path

    def _vrt(self, tiles: Sequence[_Tile], attributes: Mapping[str, Any]) -> str:
        g = self.georeference
        left = min(tile.window.column for tile in tiles)
        top = min(tile.window.row for tile in tiles)
        columns = max(tile.window.column + tile.window.columns for tile in tiles) - left
        rows = max(tile.window.row + tile.window.rows for tile in tiles) - top
        whole = g.part(Window(top, left, rows, columns))
        middle = whole.west + columns * whole.cell_x / 2
        whole = replace(whole, west=whole.west - 360 * math.floor((middle + 180) / 360))
        a, b, c, d, e, f = whole.transform
        crs = parse_crs(g.crs_wkt, self.target.name).to_wkt() if g.crs_wkt else ""
        levels = " ".join(str(2**level) for level in range(1, len(cog.shapes(rows, columns))))
        lines = [
            f'<VRTDataset rasterXSize="{columns}" rasterYSize="{rows}">',
            f'  <SRS dataAxisToSRSAxisMapping="2,1">{html.escape(crs)}</SRS>',
            f"  <GeoTransform>{', '.join(repr(float(value)) for value in (c, a, b, f, d, e))}</GeoTransform>",
            "  <Metadata>",
        ]
        for key, value in plain_attributes({**attributes, "AREA_OR_POINT": "Area"}).items():
            lines.append(f'    <MDI key="{html.escape(str(key))}">{html.escape(str(value), quote=False)}</MDI>')
        lines.append("  </Metadata>")
        for number, band in enumerate(self.bands, start=1):
            units = "1" if band == SOURCE_BAND else g.units
            lines += [
                f'  <VRTRasterBand dataType="Float32" band="{number}">',
                f"    <Description>{html.escape(band)}</Description>",
                f"    <NoDataValue>{self.nodata!r}</NoDataValue>",
                f"    <UnitType>{html.escape(units)}</UnitType>",
            ]
            for tile in tiles:
                row, column, height, width = tile.window
                size = f'xSize="{width}" ySize="{height}"'
                lines += [
                    "    <SimpleSource>",
                    f'      <SourceFilename relativeToVRT="1">{tile.name}.tif</SourceFilename>',
                    f"      <SourceBand>{number}</SourceBand>",
                    f'      <SourceProperties RasterXSize="{width}" RasterYSize="{height}" DataType="Float32" '
                    f'BlockXSize="{cog.TILE}" BlockYSize="{cog.TILE}"/>',
                    f'      <SrcRect xOff="0" yOff="0" {size}/>',
                    f'      <DstRect xOff="{column - left}" yOff="{row - top}" {size}/>',
                    "    </SimpleSource>",
                ]
            lines.append("  </VRTRasterBand>")
        resampling = "nearest" if SOURCE_BAND in self.bands else "average"
        if levels:
            # Read from the tiles' own overviews.
            lines.append(f'  <OverviewList resampling="{resampling}">{levels}</OverviewList>')
        return "\n".join([*lines, "</VRTDataset>", ""])

    def _catalogue(self, tiles: Sequence[_Tile], attributes: Mapping[str, Any]) -> None:
        pystac = geo_module("pystac")
        when = datetime.datetime.fromtimestamp(self.when, datetime.UTC)
        bands = [
            {"name": band, "data_type": "float32", "nodata": self.nodata, "unit": "1" if band == SOURCE_BAND else "m"}
            for band in self.bands
        ]
        items, boxes = [], []
        for tile in tiles:
            grid = self._place(tile)
            west, south, east, north = (round(float(edge), 9) for edge in grid.bounds)
            box = [west, south, east, north]
            boxes.append(box)
            ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
            item = pystac.Item(
                id=tile.name,
                geometry={"type": "Polygon", "coordinates": [ring]},
                bbox=box,
                datetime=when,
                properties={"proj:shape": [grid.rows, grid.columns], "proj:transform": list(grid.transform)},
                stac_extensions=list(_EXTENSIONS),
            )
            asset = pystac.Asset(
                href=f"../{tile.name}.tif",
                title="elevation",
                media_type=pystac.MediaType.COG,
                roles=["data"],
                extra_fields={
                    "bands": bands,
                    "file:size": (self._path / f"{tile.name}.tif").stat().st_size,
                },
            )
            item.add_asset("elevation", asset)
            items.append(item)
        edges = np.array(boxes)
        whole = [*edges[:, :2].min(axis=0).tolist(), *edges[:, 2:].max(axis=0).tolist()]
        collection = pystac.Collection(
            id=self.target.name,
            description=f"Elevations in metres: {len(tiles)} tiles of {self.degrees:g} degrees, by earthsr predict",
            extent=pystac.Extent(pystac.SpatialExtent([whole]), pystac.TemporalExtent([[when, when]])),
            license="other",
            extra_fields={f"earthsr:{key}": value for key, value in plain_attributes(attributes).items()},
        )
        collection.add_asset(
            "mosaic",
            pystac.Asset(href=f"./{self.target.name}.vrt", media_type="application/xml", roles=["overview"]),
        )
        collection.set_self_href(str(self._path / COLLECTION))
        for item in items:
            collection.add_item(item, set_parent=True)
            item.set_self_href(str(self._path / "items" / f"{item.id}.json"))
        collection.save(catalog_type=pystac.CatalogType.SELF_CONTAINED)


def is_tiles(folder: Path) -> bool:
    """Whether a folder is one of tiles, or empty: what may be replaced by another one."""
    return (folder / COLLECTION).is_file() or not any(folder.iterdir())
