# %% [markdown] lang="en"
# # Your own rasters
#
# [中文](zh/own_data.ipynb)
#
# GeoTIFF in, GeoTIFF out: cut rasters of elevation into training data, train a small model, enlarge a coarse raster,
# and get a fine one that lies in the right place, with its coordinate reference system (CRS), its *nodata* value (the
# number that stands for "nothing is known here") and its units.
#
# The rasters here are made from the terrain that matplotlib ships; put yours in their place. NetCDF and Zarr work as
# well. It takes about a minute on two cores and needs `pip install -e '.[torch,geo,tutorials]'`.

# %% [markdown] lang="zh"
# # 使用自己的栅格数据
#
# [English](../own_data.ipynb)
#
# 输入 GeoTIFF，输出 GeoTIFF：把高程栅格切成训练数据，训练一个小模型，对低分辨率栅格做超分辨率重建，得到位置准确的高分辨
# 率栅格，并保留坐标参考系（CRS）、*无数据值*（nodata，表示“此处无观测”的数值）和单位。
#
# 这里的栅格由随 matplotlib 发布的地形生成，换成自己的文件即可；NetCDF 和 Zarr 同样适用。在两个 CPU 核上约需一分钟，需要
# 先 `pip install -e '.[torch,geo,tutorials]'`。

# %%
backend = "torch"
quick = False

# %%
import os
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import numpy as np
import rasterio
import xarray
from rasterio.transform import from_origin

import earthsr
from earthsr.geo.resample import block_mean
from earthsr.geo.terrain import hillshade
from earthsr.samples.dem import jacksboro

here = Path.cwd()
os.chdir(next(folder for folder in (here, *here.parents) if (folder / "configs").is_dir()))
folder = Path("runs/tutorial-own-data")
folder.mkdir(parents=True, exist_ok=True)
# Shell cells below take the framework from here.
os.environ["BACKEND"] = backend
os.environ["STRIDE"] = "6" if quick else "2"
plt.rcParams["figure.dpi"] = 75

# %% [raw] lang="zh"
# + # 图中的中文用下列字体中已安装的显示；一种都没有时会显示为方框，请先安装其中之一。
# + from matplotlib import font_manager
# +
# + known = ("Noto Sans CJK SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei", "SimHei", "WenQuanYi Zen Hei")
# + installed = [font for font in known if font in font_manager.get_font_names()]
# + plt.rcParams["font.family"] = ["DejaVu Sans", *installed[:1]]

# %% [markdown] lang="en"
# ## The rasters
#
# Two GeoTIFFs side by side are the *fine* truth, 3 arc-seconds, as SRTM comes in tiles; the eastern one has a hole
# without values. A third is a *coarse* product of the same ground at 15 arc-seconds, as GEBCO is one. Its georeference
# is wrong by half a fine cell, on purpose: that happens where one program takes a coordinate for the corner of a cell
# (*pixel is area*) and another for its centre (*pixel is point*).

# %% [markdown] lang="zh"
# ## 栅格文件
#
# 两幅左右相邻的 GeoTIFF 是*高分辨率*真值（3 角秒），如同 SRTM 按图幅发布；东边一幅中有一块空洞（无数据）。第三幅是同一
# 区域的*低分辨率*产品（15 角秒），相当于 GEBCO。它的地理坐标被有意错开了半个高分辨率像元：当一个程序把坐标当作像元角点
# （*pixel is area*），另一个程序当作像元中心（*pixel is point*）时，就会出现这种错误。

# %%
NODATA = -32768.0
terrain = jacksboro()
fine = terrain.elevation[:340, :400]  # whole blocks of 5 x 5
cell = terrain.cell_size_deg


def write(path, values, west, north, size):
    with rasterio.open(
        path, "w", driver="GTiff", dtype="float32", count=1, height=values.shape[0], width=values.shape[1],
        crs="EPSG:4326", transform=from_origin(west, north, size, size), nodata=NODATA,
    ) as target:  # fmt: skip
        target.write(np.where(np.isfinite(values), values, NODATA).astype(np.float32), 1)
        target.units = ("m",)


east = fine[:, 200:].copy()
east[150:175, 60:90] = np.nan
write(folder / "west.tif", fine[:, :200], terrain.west_deg, terrain.north_deg, cell)
write(folder / "east.tif", east, terrain.west_deg + 200 * cell, terrain.north_deg, cell)

coarse = block_mean(fine, 5)
coarse[60:64, 10:20] = np.nan
shift = cell / 2
write(folder / "coarse.tif", coarse, terrain.west_deg + shift, terrain.north_deg - shift, 5 * cell)
for path in sorted(folder.glob("*.tif")):
    with rasterio.open(path) as source:
        print(
            f"{path.name}: {source.height} x {source.width} cells of {3600 * source.res[0]:g} arc-seconds, {source.crs}"
        )

# %% [markdown] lang="en"
# ## Prepare
#
# `earthsr prepare dem` cuts patches for training, validation and test from blocks that do not touch. Files of one
# region, here `jacksboro=`, are one mosaic. Voids are masked, and every coarse cell that touches one with them: no loss
# and no score counts them. `--lr` names the coarse product; without it coarse cells are means of fine ones.
#
# Before cutting, the coarse product is compared with the truth averaged over its cells: *registration*. Half a pixel of
# disagreement is corrected (`--register auto`), anything else is reported. Look for the offset in the log: some 0.5
# fine cells in both directions, corrected, after which 0.00 are left.

# %% [markdown] lang="zh"
# ## 准备训练数据
#
# `earthsr prepare dem` 从互不相接的区块中切出训练、验证和测试用的样本块。属于同一区域（这里是 `jacksboro=`）的文件拼成
# 一幅。空洞以及与其相接的整个低分辨率像元都被掩膜，不计入损失和得分。`--lr` 指定低分辨率产品；不给出时，低分辨率像元取
# 高分辨率像元的平均值。
#
# 切块之前，先把低分辨率产品与其像元范围内的真值平均相比较，即*配准*（registration）。半个像元的偏移会被校正
# （`--register auto`），其他偏移只报告。请看日志中的偏移量：两个方向各约 0.5 个高分辨率像元，校正后剩余 0.00。

# %% language="bash"
# exec 2>&1  # the log as output too: standard error is drawn on red
# cd runs/tutorial-own-data
# earthsr prepare dem dataset jacksboro=west.tif jacksboro=east.tif --lr jacksboro=coarse.tif \
#   --patch 16 --stride $STRIDE --shares 0.56,0.2,0.24 --buffer 1 --register auto --overwrite

# %% [markdown] lang="en"
# ## Train
#
# `earthsr.train` is the whole of it; `earthsr train CONFIG --set data.root_dir=…` is the command.

# %% [markdown] lang="zh"
# ## 训练
#
# 一次 `earthsr.train` 调用即可完成；对应的命令是 `earthsr train CONFIG --set data.root_dir=…`。

# %%
config = earthsr.load_yaml_config("configs/dem_srnet_demo.yaml")
config["data"]["root_dir"] = str(folder / "dataset")
config["data"]["name"] = "my-rasters"
config["summary"]["summary_dir"] = str(folder / "run")
config["summary"]["valid_frequency"] = 1 if quick else 2
config["optimizer"]["epochs"] = 2 if quick else 8
config["optimizer"]["warmup_steps"] = 5 if quick else 25
config["model"]["features"] = 16 if quick else 48
config["model"]["num_blocks"] = 2 if quick else 8
config["train"]["amp_level"] = "O0"
run = earthsr.train(config, backend=backend, overwrite=True, logger=earthsr.create_logger())
evaluation = earthsr.evaluate(run.best, backend=backend)
print(evaluation.headline)

# %% [markdown] lang="en"
# ## Predict
#
# `prepare` has corrected what it read; the file itself is still half a cell off, and `predict` believes files. So its
# georeference is corrected first.

# %% [markdown] lang="zh"
# ## 预测
#
# `prepare` 校正的只是读入的数据，文件本身仍错开半个像元，而 `predict` 以文件为准。因此先改正文件的地理坐标。

# %%
with rasterio.open(folder / "coarse.tif", "r+") as source:
    source.transform = from_origin(terrain.west_deg, terrain.north_deg, 5 * cell, 5 * cell)

# %% [markdown] lang="en"
# Raster in, raster out. `--conserve` makes the area mean of the fine cells in every coarse cell that cell's value, so
# that what is summed over areas stays the same; the output says by how much it was off before. The corner of the raster
# stays where it is, and cells are divided by five. The suffix says what is written: `.tif` is a Cloud Optimized
# GeoTIFF, `.nc` CF NetCDF, `.zarr` Zarr.

# %% [markdown] lang="zh"
# 输入栅格，输出栅格。`--conserve` 使每个低分辨率像元内各高分辨率像元的面积平均等于该像元的值，按面积累加的量因此保持不
# 变；输出中会说明校正前相差多少。栅格的角点保持不变，像元边长变为五分之一。输出格式由后缀决定：`.tif` 为 Cloud
# Optimized GeoTIFF，`.nc` 为 CF NetCDF，`.zarr` 为 Zarr。

# %% language="bash"
# exec 2>&1  # the log as output too: standard error is drawn on red
# cd runs/tutorial-own-data
# earthsr predict run coarse.tif fine.tif --conserve --overwrite --backend $BACKEND
# earthsr predict run coarse.tif fine.nc --conserve --overwrite --backend $BACKEND

# %% [markdown] lang="en"
# ## Read it back
#
# With rasterio, as QGIS and GDAL see it: CRS, corner, nodata and units are the input's. A coarse cell without a value
# gives 25 fine cells without one.

# %% [markdown] lang="zh"
# ## 读回结果
#
# 先用 rasterio 读取（QGIS 和 GDAL 看到的内容相同）：CRS、角点、无数据值和单位都与输入一致。一个没有值的低分辨率像元对应
# 25 个没有值的高分辨率像元。

# %%
with rasterio.open(folder / "coarse.tif") as before, rasterio.open(folder / "fine.tif") as after:
    rows = [
        ("rows, columns", before.shape, after.shape),
        ("CRS", before.crs, after.crs),
        ("west, north (°)", *((round(d.transform.c, 6), round(d.transform.f, 6)) for d in (before, after))),
        ("cell (arc-seconds)", round(3600 * before.res[0], 6), round(3600 * after.res[0], 6)),
        ("nodata", before.nodata, after.nodata),
        ("units", before.units[0], after.units[0]),
        (
            "cells without value",
            int(before.read(1, masked=True).mask.sum()),
            int(after.read(1, masked=True).mask.sum()),
        ),
    ]
    prediction = after.read(1, masked=True).filled(np.nan)
    bounds = after.bounds
for name, a, b in rows:
    print(f"{name:>20}  {a!s:>24}  {b!s:>24}")

# %% [markdown] lang="en"
# With xarray, by coordinates: a row of cells from west to east through the block in the east that training has not
# seen.

# %% [markdown] lang="zh"
# 再用 xarray 按坐标读取：取一条自西向东的剖面，穿过训练中未见过的东部区块。

# %%
with xarray.open_dataset(folder / "fine.nc", engine="h5netcdf") as dataset:
    print(dataset["elevation"].attrs["units"], dict(dataset.sizes))
    line = dataset["elevation"].sel(lat=36.6183, method="nearest").sel(lon=slice(-84.20, None)).load()

row = int((terrain.north_deg - float(line.lat)) / cell)
columns = ((line.lon.values - terrain.west_deg) / cell).astype(int)
plt.figure(figsize=(10, 3.4), layout="constrained")
plt.step(line.lon, coarse[row // 5, columns // 5], where="mid", color="0.6", label="coarse cells, 15 arc-seconds")
plt.plot(line.lon, fine[row, columns], color="black", lw=1.6, label="truth, 3 arc-seconds")
plt.plot(line.lon, line, color="tab:blue", lw=1.2, label="prediction, 3 arc-seconds")
plt.xlabel("longitude (°E)")
plt.ylabel("elevation (m)")
plt.title(f"Profile at {float(line.lat):.3f}° N")
plt.legend(fontsize=9)
plt.show()

# %% [raw] lang="zh"
# coarse cells, 15 arc-seconds -> 粗格点，15 角秒
# truth, 3 arc-seconds -> 真值，3 角秒
# prediction, 3 arc-seconds -> 预测，3 角秒
# longitude (°E) -> 经度（°E）
# elevation (m) -> 高程（m）
# Profile at {float(line.lat):.3f}° N -> 北纬 {float(line.lat):.3f}° 剖面

# %% [markdown] lang="en"
# The whole raster as hillshades, with the sun in the north-west. White: no value, in the coarse product and so in the
# prediction. What is right of the dashed line was seen neither in training nor in validation.

# %% [markdown] lang="zh"
# 整幅栅格的山体阴影图，光源位于西北。白色处无数据：低分辨率产品缺测，预测也随之留空。虚线以东的区域在训练和验证中都没有
# 出现过。

# %%
with h5py.File(folder / "dataset" / "test" / "test.h5") as patches:
    test_west = patches["origin"][:, 0].min()
extent = (bounds.left, bounds.right, bounds.bottom, bounds.top)
metres = cell * 111_195
across = metres * np.cos(np.deg2rad((bounds.bottom + bounds.top) / 2))
figure, panels = plt.subplots(1, 3, figsize=(15, 4.7), layout="constrained", sharey=True)
pictures = (("Coarse input", coarse, 5), ("Prediction", prediction, 1), ("Truth", fine, 1))
for axes, (title, values, factor) in zip(panels, pictures, strict=True):
    filled = np.where(np.isfinite(values), values, np.nanmean(values))
    shade = np.where(np.isfinite(values), hillshade(filled, metres * factor, across * factor), np.nan)
    picture = axes.imshow(shade, cmap="gray", vmin=0, vmax=1, extent=extent, aspect=metres / across)
    axes.axvline(test_west, color="tab:orange", ls="--", lw=1)
    axes.set(title=f"{title}, {3 * factor} arc-seconds", xlabel="longitude (°E)")
panels[0].set_ylabel("latitude (°N)")
figure.colorbar(picture, ax=panels, label="illumination (0 to 1)", shrink=0.8)
plt.show()

# %% [raw] lang="zh"
# Coarse input -> 粗分辨率输入
# "Prediction" -> "预测"
# "Truth" -> "真值"
# {title}, {3 * factor} arc-seconds -> {title}，{3 * factor} 角秒
# longitude (°E) -> 经度（°E）
# latitude (°N) -> 纬度（°N）
# illumination (0 to 1) -> 光照（0 到 1）

# %% [markdown] lang="en"
# From Python without files, an `xarray.DataArray` in and one out: `earthsr.predict(earthsr.from_pretrained(run.best,
# backend=backend), array, conserve=True)`. Projected coordinates, mosaics, several regions, rasters larger than memory:
# `docs/dem.md`.

# %% [markdown] lang="zh"
# 在 Python 中也可以不经过文件，直接输入和输出 `xarray.DataArray`：
# `earthsr.predict(earthsr.from_pretrained(run.best, backend=backend), array, conserve=True)`。投影坐标、多幅拼接、多个
# 区域以及大于内存的栅格，见 `docs/dem.md`。
