"""The ``model`` section: DEM-SRNet under our keys and under MindEarth's, and the U-Net."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from earthsr.config.section import Count, OddKernel, Section


class _ModelSection(Section):
    section: ClassVar[str] = "model"

    @model_validator(mode="after")
    def _odd_kernel(self) -> Self:
        kernel = getattr(self, "kernel_size", 3)
        if kernel % 2 == 0:
            raise ValueError(f"model.kernel_size is {kernel}, expected an odd number (3 in the paper)")
        return self


class DemSRNetModel(_ModelSection):
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
    residual_over: Literal["none", "bilinear", "bicubic", "conservative"] = Field(
        "none", description="interpolated surface that the network's output is added to"
    )
    local_mean: int = Field(
        0, ge=0, le=8, description="coarse cells to each side whose mean the network does not see; 0: it sees heights"
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
        if self.global_skip == "input" and self.in_channels not in (1, self.features):
            raise ValueError(
                f"model.global_skip is input, which can broadcast 1 channel over {self.features} features; "
                f"found in_channels {self.in_channels}"
            )
        return self


class DEMNetModel(_ModelSection):
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


class UNetModel(_ModelSection):
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


#: The sections that ``model.name`` chooses from. Keys are the fields of the network's spec of the same name.
ModelSection = Annotated[DemSRNetModel | DEMNetModel | UNetModel, Field(discriminator="name")]
