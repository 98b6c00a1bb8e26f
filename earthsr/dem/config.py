"""The keys of elevation in a configuration: its networks, and what data and training have beside the common keys."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from earthsr.config import Config, DataSection, ModelSection, TrainSection
from earthsr.config.sections import Count, NonNegative, OddKernel


class _Network(ModelSection):
    @model_validator(mode="after")
    def _odd_kernel(self) -> Self:
        kernel = getattr(self, "kernel_size", 3)
        if kernel % 2 == 0:
            raise ValueError(f"model.kernel_size is {kernel}, expected an odd number (3 in the paper)")
        return self


class DemSRNetModel(_Network):
    """DEM-SRNet and its named variants (the EDSR baseline is one of them)."""

    name: Literal["demsrnet"] = Field("demsrnet", description="which network: DEM-SRNet under our keys")
    scale: int = Field(5, ge=2, le=10, description="fine cells per coarse cell and axis")
    in_channels: Count = Field(1, description="fields that go in; 1 for elevation alone")
    out_channels: Count = Field(1, description="fields that come out; 1 for elevation alone")
    features: int = Field(256, ge=1, le=4096, description="channels of every hidden convolution")
    num_blocks: int = Field(42, ge=0, le=256, description="residual blocks")
    kernel_size: OddKernel = 3
    residual_scale: float = Field(1.0, gt=0, le=1, description="factor on each residual block before the addition")
    global_skip: Literal["features", "input"] = Field(
        "features", description="what is added to the body's output: the head's features (EDSR) or the input itself"
    )
    resize: Literal["half_pixel", "asymmetric"] = Field(
        "half_pixel", description="registration of the bilinear upsampling; asymmetric shifts terrain (MindEarth)"
    )
    upsampler: Literal["interpolate", "pixel_shuffle"] = Field(
        "interpolate", description="bilinear interpolation of features, or channels rearranged into fine cells (EDSR)"
    )
    bias: bool = Field(False, description="whether convolutions have biases")
    fine_features: int = Field(
        0,
        ge=0,
        le=1024,
        description="channels of a non-linear head on fine cells, which can bend where coarse cells meet; 0: one "
        "linear convolution, as in the paper",
    )
    residual_over: Literal["none", "bilinear", "bicubic", "conservative", "mean_preserving"] = Field(
        "none",
        description="interpolated surface that the network's output is added to; mean_preserving keeps coarse values "
        "as means without steps (conservative, of older weights, has steps)",
    )
    local_mean: int = Field(
        0, ge=0, le=8, description="coarse cells to each side whose mean the network does not see; 0: it sees heights"
    )
    local_relief: int = Field(
        0,
        ge=0,
        le=64,
        description="coarse cells to each side over which relief is measured, by which the network divides what it "
        "sees and multiplies what it adds: one network for plains and mountains; 0: it does not",
    )

    @model_validator(mode="after")
    def _channels_agree(self) -> Self:
        if self.residual_over != "none" and self.in_channels != self.out_channels:
            raise ValueError(
                f"model.residual_over is {self.residual_over}, which needs as many output as input channels; "
                f"found in_channels {self.in_channels} and out_channels {self.out_channels}"
            )
        if self.local_mean and self.residual_over == "none":
            raise ValueError(
                f"model.local_mean is {self.local_mean}, which hides the height from the network, and "
                "model.residual_over is none, so that nothing adds it again; set residual_over to bicubic, "
                "or local_mean to 0"
            )
        if self.local_relief and not self.local_mean:
            raise ValueError(
                f"model.local_relief is {self.local_relief}, which divides departures from a local mean, and "
                "model.local_mean is 0, so that heights would be divided; set model.local_mean to 8, or "
                "model.local_relief to 0"
            )
        if self.global_skip == "input" and self.in_channels not in (1, self.features):
            raise ValueError(
                f"model.global_skip is input, which can broadcast 1 channel over {self.features} features; "
                f"found in_channels {self.in_channels}"
            )
        return self


class DEMNetModel(_Network):
    """MindEarth's variant under MindEarth's keys: ``out_channels`` counts *features*, the output has one channel."""

    name: Literal["DEMNet"] = Field(description="which network: MindEarth's variant, under MindEarth's keys")
    scale: int = Field(5, ge=2, le=10, description="fine cells per coarse cell and axis")
    out_channels: int = Field(256, ge=1, le=4096, description="channels of every hidden convolution (MindEarth's name)")
    kernel_size: OddKernel = 3
    in_channels: Literal[1] = Field(1, description="fields that go in: elevation alone")
    num_blocks: int = Field(42, ge=0, le=256, description="residual blocks")

    def as_demsrnet(self) -> DemSRNetModel:
        """Return the same network under the general names."""
        return DemSRNetModel(
            scale=self.scale,
            features=self.out_channels,
            num_blocks=self.num_blocks,
            kernel_size=self.kernel_size,
            residual_scale=0.1,
            global_skip="input",
            resize="asymmetric",
        )


#: The sections that ``model.name`` chooses from. Keys are the fields of the network's spec of the same name.
DemModel = Annotated[DemSRNetModel | DEMNetModel, Field(discriminator="name")]


class DemDataSection(DataSection):
    """Elevation: where the patches are and how they are read. MindEarth's ``epochs`` and ``epoch_size`` are read."""

    normalisation: Literal["patch", "global", "none"] = Field(
        "patch", description="subtract each patch's coarse mean, or the data set's; divide by one scale"
    )
    shift: bool = Field(
        False,
        description="coarse cells placed anew on the same terrain, at random by less than a cell, training split only; "
        "for coarse cells that are block means of the truth",
    )
    degradation: Literal["file", "block_mean", "bell", "mixed", "fitted"] = Field(
        "file",
        description="coarse cells of the training split: the file's, or taken anew from fine cells, at a place drawn "
        "by chance, as block means, Gaussian bells (as GEBCO's over SRTM), one of both, or by a kernel that was fitted",
    )
    degradation_kernel: str = Field(
        "", description="degradation.json that prepare dem --fit-degradation wrote; for degradation fitted"
    )
    bell_sigma: tuple[float, float] = Field(
        (1.7, 1.9), description="least and greatest sigma of bells along rows, fine cells; GEBCO's are 1.8"
    )
    bell_aspect: tuple[float, float] = Field(
        (1.0, 1.75),
        description="least and greatest sigma along columns over that along rows; of bells round on the ground one "
        "over the cosine of the latitude, 1.75 at 55 degrees",
    )
    degradation_offset: NonNegative = Field(
        0.0, description="most fine cells by which coarse cells made anew lie off their blocks along an axis"
    )
    crop: int = Field(
        0,
        ge=0,
        le=4096,
        description="coarse cells per side of what training sees of a patch whose coarse cells are made anew; 0: one "
        "less than fit",
    )

    @model_validator(mode="after")
    def _degradation_fits(self) -> Self:
        for key in ("bell_sigma", "bell_aspect"):
            low, high = getattr(self, key)
            if not 0 < low <= high:
                raise ValueError(f"data.{key} is [{low:g}, {high:g}], expected two above 0, the lower first")
        if bool(self.degradation_kernel) != (self.degradation == "fitted"):
            raise ValueError(
                f"data.degradation is {self.degradation} and data.degradation_kernel {self.degradation_kernel!r}: a "
                "fitted degradation takes the degradation.json that earthsr prepare dem --fit-degradation wrote, and "
                "others none"
            )
        if self.shift and self.degradation != "file":
            raise ValueError(
                f"data.degradation is {self.degradation}, which places coarse cells anew by itself: set data.shift to "
                "false"
            )
        if self.crop and self.degradation == "file":
            raise ValueError(
                f"data.crop is {self.crop}, and data.degradation is file, whose coarse cells stay as they are: set "
                "data.degradation to block_mean, bell or mixed, or data.crop to 0"
            )
        return self


class DemTrainSection(TrainSection):
    """Elevation: how the run is carried out."""

    by_relief: bool = Field(
        False, description="weigh every sample by one over its relief, so that plains count as mountains do"
    )

    slope: NonNegative = Field(
        0.0, description="factor of the slope-aware loss that is added (squared error of the gradients)"
    )


class DemConfig(Config):
    """A configuration of elevation."""

    model: DemModel = Field(
        default_factory=DemSRNetModel, description="the network: demsrnet, or DEMNet in MindEarth's own keys"
    )
    data: DemDataSection = Field(default_factory=DemDataSection, description="where the samples are, how they are read")
    train: DemTrainSection = Field(default_factory=DemTrainSection, description="how the run is carried out")

    @model_validator(mode="after")
    def _loss_fits(self) -> Self:
        if self.train.loss == "cross_entropy":
            raise ValueError(
                "train.loss is cross_entropy, but the model's output is continuous: use mse, l1 or huber, or auto"
            )
        return self

    @property
    def demsrnet(self) -> DemSRNetModel:
        """The model section under the general names, whichever alias was written."""
        return self.model.as_demsrnet() if isinstance(self.model, DEMNetModel) else self.model
