"""What the tests of the examples feed them with."""

import numpy as np

from earthsr.geo.crs import parse_crs, wkt_of

WGS84 = wkt_of(parse_crs("EPSG:4326", "test"))


def write_grid(path, header=("xllcorner -84.5", "yllcorner 36.25"), cell=0.25, nodata=-32768):
    """Made elevations, 12 x 14 cells of a quarter degree, with one void; returns them."""
    values = np.round(300 + 50 * np.random.default_rng(1).normal(size=(12, 14)), 1).astype(np.float32)
    values[3, 4] = np.nan
    rows = "\n".join(" ".join(f"{v:.1f}" for v in row) for row in np.nan_to_num(values, nan=nodata))
    top = "\n".join(("ncols 14", "nrows 12", *header, f"cellsize {cell}", f"NODATA_value {nodata}"))
    path.write_text(f"{top}\n{rows}\n")
    path.with_suffix(".prj").write_text(WGS84)
    return values


#: Run on the branch: what the spec of the model says of its network.
MODEL = """
import numpy as np
from earthsr.backend import get_backend
from earthsr.models import initial_weights, spec_from_dict

def engine(spec, keep_zeros):
    return get_backend("torch").engine(spec, initial_weights(spec, 1, keep_zeros), device="cpu")

x = np.random.default_rng(0).normal(size=(2, 1, 11, 15)).astype(np.float32)
for scale in (3, 10):  # where the last fine cell that a kernel reaches is interpolated from two coarse cells beyond
    spec = spec_from_dict({"kind": "srcnn", "features": 6, "scale": scale})
    assert spec.parameter_count == 6 * 81 + 3 * 6 + 3 * 25
    assert spec.flops(2, 2) == 2 * spec.parameter_count * 4 * scale**2
    here, column, reach = engine(spec, False), 7, spec.receptive_radius
    layers = here.activations({"elevation": x})
    assert list(layers) == list(spec.layers)
    np.testing.assert_array_equal(engine(spec, True).submit({"elevation": x}).result(), layers["surface"])
    before = here.submit({"elevation": x}).result()
    for distance, changes in ((reach + 1, False), (reach, True), (-reach, True), (-reach - 1, False)):
        moved = x.copy()
        moved[..., column + distance] += 1
        gap = here.submit({"elevation": moved}).result() - before
        inside = gap[..., column * scale : (column + 1) * scale]
        assert bool(np.abs(inside).max() > 0) == changes, (scale, distance)
"""
