"""Score maps of `earthsr reconstruct` against maps of other years: classes, change, agreement of areas.

    python tools/score_maps.py maps.zarr --truth 2020=landuse_2020.tif [--json]

Persistence, the anchor's map for every year, stands beside them. Read band by band.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from earthsr.errors import EarthsrError, InputError
from earthsr.geo import Window
from earthsr.landuse.maps import Maps, open_maps
from earthsr.landuse.scores import MapStatistics
from earthsr.landuse.sources.rasters import ClassMaps

#: Rows read at once.
BAND = 512


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", type=Path, nargs="+", metavar="MAPS", help="stores of earthsr reconstruct (.zarr)")
    parser.add_argument("--truth", action="append", required=True, metavar="YEAR=PATH", help="class raster of a year")
    parser.add_argument("--anchor-year", type=int, help="year of the anchor; else as the report of the maps says")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


def anchor_of(path: Path) -> int:
    report = path.with_name(f"{path.stem}_report") / "reconstruct.json"
    try:
        return int(json.loads(report.read_text(encoding="utf-8"))["identity"]["anchor"])
    except (FileNotFoundError, KeyError, ValueError):
        raise InputError(f"{report}: does not say the anchor's year; give it with --anchor-year") from None


def score(maps: Maps, truth: ClassMaps, anchor: int) -> dict[str, dict[str, object]]:
    """Scores by row and year."""
    names = maps.spec.table.names
    grid, k = maps.spec.grid, len(names)
    by_year: dict[str, dict[str, object]] = {}
    for year in truth.years:
        if year not in maps.spec.years:
            raise InputError(f"the maps are of {maps.spec.years[0]} to {maps.spec.years[-1]}, the truth is of {year}")
        rows = {"maps": MapStatistics.empty(k), "persistence": MapStatistics.empty(k)}
        for top in range(0, grid.rows, BAND):
            window = Window(top, 0, min(BAND, grid.rows - top), grid.columns)
            made, first = (maps.read("land_use", of_year, window) for of_year in (year, anchor))
            real = truth.read(year, window)
            rows["maps"] += MapStatistics.of(real, made, first, k)
            rows["persistence"] += MapStatistics.of(real, first, first, k)
        for name, statistics in rows.items():
            scores = statistics.scores(names)
            by_year[f"{name} {year}"] = {
                "miou": scores["miou"],
                "accuracy": scores["accuracy"],
                "figure_of_merit": scores["change"]["figure_of_merit"],
            }
    return by_year


def main() -> int:
    options = parse()
    try:
        result = {}
        for path in options.maps:
            maps = open_maps(path)
            truth = ClassMaps(options.truth, maps.spec.table)
            try:
                anchor = options.anchor_year or anchor_of(path)
                result[path.name] = score(maps, truth, anchor)
            finally:
                truth.close()
    except EarthsrError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.json:
        print(json.dumps(result, indent=2))
        return 0
    for name, rows in result.items():
        for row, scores in rows.items():
            shown = ", ".join(
                f"{key} {'–' if value is None else format(value, '.4f')}" for key, value in scores.items()
            )
            print(f"{name:24} {row:18} {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
