"""The keys of sea-surface temperature in a configuration, beside those that every workload has."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from earthsr.config import Config, DataSection, ModelSection, TrainSection


class SstModel(ModelSection):
    """DEM-SRNet's network over a bicubic surface, for fields of temperature."""

    name: Literal["sst"] = Field(description="which network, and with it the workload: sea-surface temperature")
    scale: int = Field(5, ge=2, le=10, description="fine cells per coarse cell and axis")
    features: int = Field(32, ge=1, le=4096, description="channels of every hidden convolution")
    num_blocks: int = Field(4, ge=0, le=256, description="residual blocks")


class SstDataSection(DataSection):
    """Sea-surface temperature: where the fields are."""

    variable: str = Field("sst", description="dataset of the files: (N, H, W) in degrees Celsius, NaN over land")
    normalisation: Literal["patch", "global"] = Field(
        "patch", description="subtract each field's coarse mean, or the data set's; divide by one scale"
    )


class SstTrainSection(TrainSection):
    """Sea-surface temperature: how the run is carried out."""

    within_k: float = Field(0.5, gt=0, description="a cell is right where it is as near to the truth as this, kelvin")


class SstConfig(Config):
    """A configuration of sea-surface temperature."""

    model: SstModel = Field(description="the network: sst")
    data: SstDataSection = Field(default_factory=SstDataSection, description="where the fields are")
    train: SstTrainSection = Field(default_factory=SstTrainSection, description="how the run is carried out")
