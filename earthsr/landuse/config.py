"""The keys of land use in a configuration: its network, and what data and training have beside the common keys."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from earthsr.config import Config, DataSection, ModelSection, TrainSection
from earthsr.config.sections import NonNegative, Positive, Share


class UNetModel(ModelSection):
    """The U-Net of land use: forcing, static fields and last year's map in, classes (or a continuous field) out."""

    name: Literal["unet"] = Field(description="which network: the U-Net")
    coarse_channels: int = Field(12, ge=1, le=1024, description="channels of the coarse forcing (12 states of LUH2)")
    static_channels: int = Field(5, ge=1, le=1024, description="static fields on the fine cells")
    classes: int = Field(7, ge=2, le=254, description="land-use classes (HILDA+ with its forests as one: 7)")
    prior: bool = Field(True, description="whether last year's map and its mask are inputs")
    totals: bool = Field(False, description="also the prior's own coarse fractions, beside the forcing's")
    width: int = Field(64, ge=1, le=4096, description="features of the finest level; twice as many on each coarser one")
    depth: int = Field(
        4, ge=1, le=8, description="times that cells become twice as large; tiles are multiples of 2**depth"
    )
    norm: Literal["batch", "group", "none"] = Field(
        "batch", description="normalisation after each convolution; group depends neither on batch size nor on ranks"
    )
    norm_groups: int = Field(8, ge=1, description="group norm: groups of features")
    upsampling: Literal["bilinear", "transposed"] = Field(
        "bilinear", description="on the way up: interpolation and a convolution, or a transposed convolution"
    )
    head: Literal["classes", "continuous"] = Field(
        "classes", description="continuous: a field such as leaf area index, from this year's map"
    )
    out_channels: int = Field(12, ge=1, le=4096, description="continuous head: channels, such as months")

    @model_validator(mode="after")
    def _groups_divide(self) -> Self:
        for level in range(self.depth + 1):
            features = self.width * 2**level
            if self.norm == "group" and features % min(self.norm_groups, features):
                raise ValueError(
                    f"model.norm_groups is {self.norm_groups}, which does not divide the {features} features of level "
                    f"{level} (model.width {self.width}); take a divisor of model.width"
                )
        return self


class LandUseDataSection(DataSection):
    """Land use: where the tiles are and how samples are made of them."""

    target: str | None = Field(None, description="continuous head: field to learn; the file's first one where null")
    directions: list[Literal["forwards", "backwards"]] = Field(
        ["forwards"], min_length=1, description="ways through time that are learnt"
    )
    coarse_interpolation: Literal["bilinear", "nearest"] = Field(
        "bilinear", description="how the forcing comes onto the fine cells"
    )
    prior_hidden: Share = Field(0.2, description="share of samples without last year's map")
    prior_hidden_blocks: Share = Field(0.2, description="share of the others that lack half of it, in blocks")
    prior_block_cells: int = Field(16, ge=1, le=4096, description="fine cells per side of these blocks")
    prior_stale: Share = Field(
        0.0, description="share of samples whose prior is older than said, as a rollout's map misses change"
    )
    prior_stale_steps: int = Field(10, ge=1, description="steps that such a prior is older at most")
    prior_own: Share = Field(
        0.0, description="share of samples whose prior is the model's own map (scheduled sampling)"
    )
    buffer_tiles: int = Field(32, ge=1, description="tiles whose samples are mixed")


class LandUseTrainSection(TrainSection):
    """Land use: how the run is carried out."""

    class_weights: Literal["none", "sqrt", "balanced"] | list[Positive] = Field(
        "none", description="cross_entropy: weights by the classes' frequency to the power 0, -1/2 or -1, or a list"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="cross_entropy: share spread evenly over all classes")
    dice: NonNegative = Field(0.0, description="cross_entropy: factor of the Dice loss that is added")


class LandUseConfig(Config):
    """A configuration of land use."""

    model: UNetModel = Field(description="the network: unet")
    data: LandUseDataSection = Field(
        default_factory=LandUseDataSection, description="where the samples are and how they are made"
    )
    train: LandUseTrainSection = Field(default_factory=LandUseTrainSection, description="how the run is carried out")

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        model, train = self.model, self.train
        if train.dice and self.optimizer.accumulate > 1:
            raise ValueError(
                f"train.dice is {train.dice:g}, a loss of a whole batch, and optimizer.accumulate is "
                f"{self.optimizer.accumulate}; set one of them to 0 or 1"
            )
        classes = model.head == "classes"
        if train.loss != "auto" and classes != (train.loss == "cross_entropy"):
            kind = "of classes: use cross_entropy" if classes else "continuous: use mse, l1 or huber"
            raise ValueError(f"train.loss is {train.loss}, but the model's output is {kind}, or auto")
        multiple = 2**model.depth
        if self.data.patch_size % multiple:
            raise ValueError(
                f"data.patch_size is {self.data.patch_size}; with model.depth {model.depth} tiles are a multiple of "
                f"{multiple}"
            )
        weights = train.class_weights
        if isinstance(weights, list) and len(weights) != model.classes:
            raise ValueError(f"train.class_weights lists {len(weights)}, model.classes is {model.classes}")
        if model.norm == "batch" and self.optimizer.accumulate > 1:
            raise ValueError(
                f"optimizer.accumulate is {self.optimizer.accumulate} and model.norm is batch, whose statistics are "
                "those of one pass: backends would differ; use model.norm group, or a larger data.batch_size"
            )
        if model.totals and not model.prior:
            raise ValueError("model.totals is true, which are those of the prior, but model.prior is false")
        if self.data.prior_own and not model.prior:
            raise ValueError("data.prior_own asks for the model's own map as prior, but model.prior is false")
        return self
