"""From a window of coarse and fine elevations to patches with their surface and place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthsr.dem.prepare.pairs import Pair
from earthsr.dem.prepare.plan import DemPlan, Job, outer
from earthsr.dem.write import Split
from earthsr.errors import geo_module
from earthsr.geo.crs import gdal, parse_crs
from earthsr.geo.window import Window

LAND, COAST, OCEAN = 0, 1, 2


@dataclass(frozen=True)
class CutPatches:
    """What was cut from one window."""

    patches: Split
    left_out: int
    """Patches with too few valid cells."""
    valid: int
    """Valid fine cells of the window."""


def cut(pair: Pair, job: Job, plan: DemPlan) -> CutPatches:
    """Cut the patches of a job that have enough valid cells.

    Fine cells are NaN where the mask is 0, and only there.
    """
    p, s = plan.patch, plan.scale
    first, last = job.columns[0], job.columns[-1]
    coarse, fine = pair.read(Window(job.row, first, p, last + p - first))
    kept, coarse_patches, fine_patches, surfaces = [], [], [], []
    for column in job.columns:
        left = column - first
        truth = fine[:, left * s : (left + p) * s]
        valid = ~np.isnan(truth)
        share = float(valid.mean())
        if not share or share < plan.minimum_valid:
            continue
        kept.append(column)
        coarse_patches.append(coarse[:, left : left + p])
        fine_patches.append(truth)
        surfaces.append(surface_of(truth[valid], plan.coast))
    count, q, grid = len(kept), p * s, pair.hr.georeference
    corners = [outer(grid, pair.alignment, s, Window(job.row, column, p, p)) for column in kept]
    corner = np.array([(west, north) for west, _, _, north in corners], np.float64).reshape(count, 2)
    columns = {"cell_size": np.full(count, grid.cell_y)}
    if not grid.geographic:
        columns["origin_xy"] = corner
        corner = degrees_of(corner, grid.crs_wkt)
    truth = np.stack(fine_patches) if kept else np.empty((0, q, q), np.float32)
    patches = Split(
        coarse=(np.stack(coarse_patches) if kept else np.empty((0, p, p), np.float32))[:, None],
        fine=truth[:, None],
        origin=corner,
        surface=np.array(surfaces, np.uint8),
        region=np.full(count, job.region, object),
        mask=(~np.isnan(truth[:, None])).astype(np.uint8),
        columns=columns,
    )
    return CutPatches(patches, len(job.columns) - count, int((~np.isnan(fine)).sum()))


def surface_of(valid: NDArray[np.float32], coast: tuple[float, float]) -> int:
    """Say what a patch is by the share of its valid cells at or below 0 m: 0 land, 1 coast, 2 ocean."""
    sea = float((valid <= 0).mean())
    return LAND if sea < coast[0] else OCEAN if sea > coast[1] else COAST


def degrees_of(corners: NDArray[np.float64], wkt: str) -> NDArray[np.float64]:
    """Longitude and latitude (N, 2) on WGS 84 of points (N, 2) of a projection."""
    warp = geo_module("rasterio.warp")
    if not len(corners):
        return corners
    with gdal():
        longitude, latitude = warp.transform(parse_crs(wkt, "raster"), "EPSG:4326", corners[:, 0], corners[:, 1])
    return np.stack([longitude, latitude], axis=1)
