"""What a model card says in sentences: intended use, limits, licence and citation, from what is known of the model.

Sentences follow from facts in the metadata; a publisher adds others under ``about`` (``limits``, ``intended_use``,
``data_licence``, ``weights_licence``, ``citation``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from earthsr.models.spec import NetworkSpec

CODE_LICENCE: Final = "Apache-2.0"

_EARTHSR = "earthsr: deep-learning maps of the Earth at high resolution, on PyTorch or MindSpore (Apache-2.0)"
_DEM_SRNET = (
    "Zhang et al., Super-resolution reconstruction of a 3 arc-second global DEM dataset, Science Bulletin (2022): "
    "the network"
)
_AI4LAND = "AI4Land, arXiv:2606.11793: the task and the use of a U-Net for it"
_UNET = "Ronneberger et al., U-Net, MICCAI (2015): the network"


def _list(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def _known(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and value.startswith("not recorded"))


def intended_use(
    spec: NetworkSpec, metadata: Mapping[str, Any], data: Mapping[str, Any], about: Mapping[str, Any]
) -> list[str]:
    """What the model is made for, and what nobody should use it for."""
    if spec.kind == "demsrnet":
        said = [
            f"Elevation in metres on a regular grid, enlarged {spec.scale} times along each axis: earthsr predict, "
            "earthsr.predict.",
            "Detail is estimated and not measured: not for navigation, engineering or the safety of people.",
        ]
    elif metadata.get("task") == "land_field":
        field = metadata.get("field", "a continuous field")
        said = [f"Maps of {field} from class maps, coarse fractions and static fields: earthsr evaluate, Python."]
    else:
        said = [
            "Annual maps of land-use classes from one map, coarse fractions of a scenario and static fields, each "
            "year's map the next one's prior: earthsr reconstruct.",
            "A map is one that agrees with the scenario, not a forecast of what a place will be used for.",
        ]
    return [*_list(about.get("intended_use")), *said]


def limits(
    spec: NetworkSpec, metadata: Mapping[str, Any], data: Mapping[str, Any], about: Mapping[str, Any]
) -> list[str]:
    """What the model has not learnt, as far as its metadata tell."""
    said = _list(about.get("limits"))
    said += _dem_limits(spec, metadata) if spec.kind == "demsrnet" else _land_limits(metadata, data)
    if not any(_known(data.get(key)) for key in ("regions", "bounds_deg", "source")):
        said.append("Where it learnt is not recorded: try it where truth is known before you trust it elsewhere.")
    elif spec.kind == "demsrnet":
        said.append("Terrain unlike what it learnt from, and other products, are extrapolation.")
    return said


def _dem_limits(spec: NetworkSpec, metadata: Mapping[str, Any]) -> list[str]:
    said = [f"The scale is {spec.scale} and no other."]
    cell = metadata.get("input_cell_size_deg")
    if cell:
        said.append(
            f"Made for coarse cells of {cell:.6g} degrees; earthsr predict warns of cells that are a quarter larger or "
            "a fifth smaller."
        )
    else:
        said.append("The cell size that it learnt is not recorded, so that nothing warns of other cells.")
    kind = _mapping(metadata.get("normalisation")).get("kind")
    if kind == "patch" and not getattr(spec, "local_mean", 0):
        said.append("It knows heights near their patch's mean: take the Gaussian mode on rasters of much relief.")
    if getattr(spec, "resize", "half_pixel") == "asymmetric":
        said.append(
            f"Its upsampling is asymmetric and shifts terrain by {(spec.scale - 1) / 2:g} fine cells along each axis, "
            "unless training undid it; earthsr evaluate measures the offset."
        )
    if getattr(spec, "residual_over", "none") == "conservative":
        said.append("It takes coarse cells for area means: points picked from a finer grid are another input.")
    return said


def _land_limits(metadata: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    said = []
    if _known(data.get("classes")):
        said.append(f"It knows the classes {', '.join(data['classes'])}, and no others.")
    directions = _list(metadata.get("directions"))
    missing = [word for word in ("forwards", "backwards") if directions and word not in directions]
    if missing:
        said.append(f"Not trained to roll out {missing[0]}: maps drift there, and earthsr reconstruct warns.")
    years = data.get("years")
    if isinstance(years, list) and years:
        said.append(f"Learnt from the years {min(years)} to {max(years)}; others are extrapolation.")
    else:
        said.append("The years that it learnt from are not recorded.")
    bounds = data.get("bounds_deg")
    if isinstance(bounds, list):
        box = ", ".join(f"{value:g}" for value in bounds)
        said.append(f"Learnt inside west, south, east, north {box} degrees; elsewhere is extrapolation.")
    if metadata.get("forcing") == "oracle":
        said.append(
            "Learnt from an oracle: coarse fractions aggregated from the true maps. A scenario disagrees with maps, "
            "and scores with one are lower."
        )
    cells = metadata.get("output_cell_size_deg")
    if isinstance(cells, list) and cells:
        said.append(f"Cells of {cells[0]:.6g} degrees; other sizes are extrapolation.")
    return said


def licences(about: Mapping[str, Any]) -> dict[str, str]:
    """Licences of code, weights and data; those of weights and data are their publishers' to say."""
    weights = about.get("weights_licence") or "not recorded: for whoever trained the model to say"
    data = about.get("data_licence") or "not recorded: the data's files name none; that of their source holds"
    return {"code": CODE_LICENCE, "weights": str(weights), "training_data": str(data)}


def citations(
    spec: NetworkSpec, metadata: Mapping[str, Any], data: Mapping[str, Any], about: Mapping[str, Any]
) -> list[str]:
    """What to cite: this package, the network, the task, and the data's sources."""
    method = [_DEM_SRNET] if spec.kind == "demsrnet" else [_AI4LAND, _UNET]
    sources = _list(about.get("citation"))
    if not sources:
        known = data.get("source")
        sources = [f"the training data's source: {known}" if _known(known) else "the training data, once known"]
    return [_EARTHSR, *method, *sources]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
