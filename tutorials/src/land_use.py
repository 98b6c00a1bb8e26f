# %% [markdown] lang="en"
# # Land use, year by year, from coarse scenarios
#
# [中文](zh/land_use.ipynb)
#
# Scenarios such as LUH2 say for every year and every cell of 0.25 degrees how much of it is forest, cropland, pasture.
# This notebook trains a U-Net that turns such *fractions* into maps of *classes* on cells sixteen times as fine, one
# map a year, each made from the one before: the task of AI4Land (arXiv 2606.11793).
#
# The world here is **synthetic**: made by rules, not observed, so that the fine truth is known for every year and
# nothing is downloaded. `docs/landuse.md` has real maps. It takes about two minutes on two cores and needs `pip install
# -e '.[torch,geo,tutorials]'`. As everywhere, `backend` names the framework; `quick = True` makes world, network and
# training small.

# %% [markdown] lang="zh"
# # 由低分辨率情景生成逐年土地利用图
#
# [English](../land_use.ipynb)
#
# LUH2 等情景数据给出每年每个 0.25 度格点中森林、耕地、牧场等各占多少。本 notebook 训练一个 U-Net，把这些*面积比例*
# （fractions）转换成边长为其十六分之一的像元上的*类别*图，每年一幅，每幅都以前一年的图为基础。这正是 AI4Land（arXiv
# 2606.11793）的任务。
#
# 这里的世界是**合成的**：由规则生成而非观测得到，因此每一年的高分辨率真值都已知，也无需下载数据；真实数据的例子见
# `docs/landuse.md`。在两个 CPU 核上约需两分钟，需要先 `pip install -e '.[torch,geo,tutorials]'`。与其他 notebook 相同，
# `backend` 指定框架；`quick = True` 会缩小世界、网络和训练量。

# %%
backend = "torch"
quick = False

# %%
import base64
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray
from IPython.display import HTML, display
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Patch

import earthsr
from earthsr.landuse.scores import change_categories
from earthsr.samples.landuse import write_sample_landuse
from earthsr.samples.world import SyntheticWorld, WorldSpec
from earthsr.tasks import task_for

here = Path.cwd()
os.chdir(next(folder for folder in (here, *here.parents) if (folder / "configs").is_dir()))
folder = Path("runs/tutorial-land-use")
# Shell cells below take the framework from here.
os.environ["BACKEND"] = backend
plt.rcParams["figure.dpi"] = 75

# %% [raw] lang="zh"
# + # 图中的中文用下列字体中已安装的显示；一种都没有时会显示为方框，请先安装其中之一。
# + from matplotlib import font_manager
# +
# + known = ("Noto Sans CJK SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei", "SimHei", "WenQuanYi Zen Hei")
# + installed = [font for font in known if font in font_manager.get_font_names()]
# + plt.rcParams["font.family"] = ["DejaVu Sans", *installed[:1]]

# %% [markdown] lang="en"
# ## Data
#
# The world has terrain, climate and land use that grows from 1980 to 1999. It is cut into *tiles* of 48 x 48 cells in
# three bands from west to east: training, where tiles overlap, validation, and test. The last ten years, 1990 to 1999,
# are in the test file alone. So the test asks for places *and* years that training has not seen. The coarse fractions
# are aggregated from the fine truth itself, which is called an *oracle*: with a real scenario scores are lower.

# %% [markdown] lang="zh"
# ## 数据
#
# 这个世界有地形和气候，土地利用在 1980 至 1999 年间逐年演变。数据被切成 48 x 48 像元的*瓦片*（tile），自西向东分为训练
# （瓦片相互重叠）、验证、测试三个条带。最后十年（1990 至 1999 年）只出现在测试文件中，因此测试所用的地点*和*年份都是训
# 练中没有见过的。低分辨率比例由高分辨率真值本身聚合得到，称为*理想强迫*（oracle）；使用真实情景时得分会低一些。

# %%
world_spec = WorldSpec(rows=96 if quick else 192, columns=768, years=tuple(range(1980, 2000)))
written = write_sample_landuse(
    folder / "dataset",
    world_spec,
    tile_size=48,
    stride=32,
    shares=(0.66, 0.12, 0.22),
    held_out_last=10,
    archives=True,
    overwrite=True,
)
print("tiles:", written.counts)
print("archives:", ", ".join(written.archives.files))

# %% [markdown] lang="en"
# The map of 1999, the elevation, and the coarse fraction of forest that the model is told. The white lines are the
# borders of the bands.

# %% [markdown] lang="zh"
# 1999 年的类别图、高程，以及提供给模型的低分辨率森林比例。白线是三个条带的边界。

# %%
world = SyntheticWorld(world_spec)
names, colours = world.table.names, world.table.colours
classes = ListedColormap(["#dcdcdc", *colours])
norm = BoundaryNorm(np.arange(-1.5, len(names) + 0.5), classes.N)


def shown(values):
    """Class numbers for drawing: cells without a class (255, the sea) become -1."""
    return np.where(values == 255, -1, values.astype(int))


def legend(figure, labels):
    fills = zip(("#dcdcdc", *colours), labels.split(", "), strict=True)
    entries = [Patch(facecolor=fill, edgecolor="0.4", label=label) for fill, label in fills]
    figure.legend(handles=entries, loc="outside lower center", ncols=8, fontsize=9, frameon=False)


grid = world.grid
west, north = grid.west, grid.north
extent = (west, west + grid.columns * grid.cell_x, north - grid.rows * grid.cell_y, north)
data_params = {"root_dir": folder / "dataset", "patch_size": 48}
valid, test = (earthsr.LandUseData(data_params, run_mode=split) for split in ("valid", "test"))
valid_west, test_west = (float(source.origins[:, 0].min()) for source in (valid, test))
forest = test.coarse[test.layout.years.index(1999), test.layout.coarse_channels.index("forest")]

figure, panels = plt.subplots(3, 1, figsize=(11, 9), dpi=60, layout="constrained", sharex=True)
panels[0].imshow(shown(world.maps[-1]), cmap=classes, norm=norm, extent=extent, interpolation="nearest")
panels[0].set_title("Classes in 1999, cells of 1/64 degree")
land = np.where(world.maps[-1] == 255, np.nan, world.terrain.elevation_m)
picture = panels[1].imshow(land, cmap="viridis", extent=extent, interpolation="nearest")
figure.colorbar(picture, ax=panels[1], label="elevation (m)")
panels[1].set_title("Elevation, one of five static fields")
picture = panels[2].imshow(forest, cmap="Greens", vmin=0, vmax=1, extent=extent, interpolation="nearest")
figure.colorbar(picture, ax=panels[2], label="fraction of the cell (0 to 1)")
panels[2].set_title("Forest in 1999, cells of 1/4 degree: the forcing")
for axes in panels:
    axes.set_ylabel("latitude (°N)")
    for border in (valid_west, test_west):
        axes.axvline(border, color="white", lw=1.5)
panels[2].set_xlabel("longitude (°E)")
legend(figure, "no class (sea), urban, cropland, pasture, forest, grass/shrub, sparse, water")
plt.show()

# %% [raw] lang="zh"
# Classes in 1999, cells of 1/64 degree -> 1999 年的类别，1/64 度像元
# elevation (m) -> 高程（m）
# Elevation, one of five static fields -> 高程，五个静态场之一
# fraction of the cell (0 to 1) -> 格点内的比例（0 到 1）
# Forest in 1999, cells of 1/4 degree: the forcing -> 1999 年的森林，1/4 度格点：强迫
# latitude (°N) -> 纬度（°N）
# longitude (°E) -> 经度（°E）
# no class (sea) -> 无类别（海洋）
# urban, cropland, pasture, forest -> 城镇, 耕地, 牧场, 森林
# grass/shrub, sparse, water -> 草地与灌丛, 稀疏植被, 水体

# %% [markdown] lang="en"
# ## The U-Net and its inputs
#
# A U-Net halves the resolution step by step and comes back up, and hands fine detail across at every level. What it
# gets for one tile and one year:
#
# - the **forcing**: a window of the coarse fractions, on their own grid; two small matrices bring it onto the fine
#   cells;
# - **static fields**: elevation, slope, soil, distance to water, latitude;
# - the **prior**: an earlier map of classes, and a **mask** that says where it may be seen;
# - year, years between the two maps, and direction in time, as numbers.
#
# It gives a probability for every class and cell.

# %% [markdown] lang="zh"
# ## U-Net 及其输入
#
# U-Net 逐级将分辨率减半，再逐级恢复，并在每一级把细节直接传到另一侧。对于一块瓦片的某一年，它的输入是：
#
# - **强迫场**（forcing）：低分辨率比例的一个窗口，保留其自身网格，由两个小矩阵插值到高分辨率像元；
# - **静态场**：高程、坡度、土壤、到水体的距离、纬度；
# - **先验图**（prior）：较早一年的类别图，以及标明哪些地方可见的**掩码**（mask）；
# - 年份、两幅图相隔的年数和时间方向，以数值给出。
#
# 输出是每个像元属于各类别的概率。

# %%
config = earthsr.load_yaml_config("configs/landuse_demo.yaml")
config["backend"] = backend
config["data"]["root_dir"] = str(folder / "dataset")
config["data"]["patch_size"] = 48
config["data"]["batch_size"] = 8
config["model"]["width"] = 8 if quick else 16
config["model"]["depth"] = 2
config["optimizer"]["epochs"] = 2 if quick else 12
config["optimizer"]["learning_rate"] = 5e-3
config["optimizer"]["warmup_steps"] = 5 if quick else 50
config["summary"]["summary_dir"] = str(folder / "run")
config["summary"]["valid_frequency"] = 2 if quick else 4
config["train"]["amp_level"] = "O0"
logger = earthsr.create_logger()
model = earthsr.init_model(config)
print(f"{model.spec.parameter_count:,} parameters; inputs:")
for field in model.spec.inputs:
    print(f"  {field.name:>10}  {field.shape}")

# %% [markdown] lang="en"
# ## Priors, and why some are hidden
#
# Little changes from year to year. A model that always sees last year's true map learns to copy it, and scores well; in
# a *rollout* it sees its own maps instead, copies its own mistakes, and stands still. So in training the prior is, at
# random,
#
# - hidden wholly (`prior_hidden`) or in blocks (`prior_hidden_blocks`): the model has to know what forcing and terrain
#   say;
# - older than it is said to be (`prior_stale`): the map of a rollout has missed some change, and what is missing has to
#   be seen from the forcing.
#
# Below are four samples as training draws them: a fresh prior, an old one, one hidden in blocks, one hidden wholly.
# White: hidden by the mask.

# %% [markdown] lang="zh"
# ## 先验图，以及为什么隐藏一部分
#
# 年与年之间变化很小。如果模型总能看到前一年的真实图，它就会学会照抄，而且得分不低；但在*滚动推演*（rollout）中它看到的
# 是自己生成的图，于是照抄自己的错误，停滞不前。因此训练时先验图会随机地
#
# - 被全部隐藏（`prior_hidden`）或按块隐藏（`prior_hidden_blocks`），模型必须懂得强迫场和地形说明了什么；
# - 换成比声称的更早的图（`prior_stale`）：推演得到的图会漏掉一些变化，漏掉的部分要从强迫场中看出来。
#
# 下面是训练中抽取的四个样本：较新的先验图、较旧的先验图、按块隐藏的、全部隐藏的。白色部分被掩码隐藏。

# %%
task = task_for(config)
dataset = task.dataset("train")
normalisation = task.normalisation(dataset)
drawn = []
for batch in dataset.training_batches(0, normalisation):
    drawn += [(prior, mask, target[0]) for prior, mask, target in zip(
        batch.inputs["prior"], batch.inputs["prior_mask"], np.where(batch.mask, batch.target, 255), strict=True
    )]  # fmt: skip
    if len(drawn) >= 160:
        break
drawn = [each for each in drawn if (each[2] != 255).mean() > 0.8]
share = np.array([(mask == 0)[prior != 255].mean() for prior, mask, _ in drawn])
changed = np.array([(prior != target)[target != 255].mean() for prior, _, target in drawn])
seen = np.flatnonzero(share == 0)
chosen = [
    seen[changed[seen].argmin()],
    seen[changed[seen].argmax()],
    np.abs(share - 0.5).argmin(),
    share.argmax(),
]

figure, panels = plt.subplots(2, 4, figsize=(11, 6.4), layout="constrained")
for (above, below), i in zip(panels.T, chosen, strict=True):
    prior, mask, target = drawn[i]
    covered = np.ma.masked_array(shown(prior), (mask == 0) & (prior != 255))
    above.imshow(covered, cmap=classes, norm=norm, interpolation="nearest")
    above.set_title(
        f"prior: {100 * share[i]:.0f} % hidden, {100 * changed[i]:.0f} % of cells\nno longer so", fontsize=10
    )
    below.imshow(shown(target), cmap=classes, norm=norm, interpolation="nearest")
    below.set_title("truth of the year", fontsize=10)
    for axes in (above, below):
        axes.set(xticks=[], yticks=[])
legend(figure, "no class (sea), urban, cropland, pasture, forest, grass/shrub, sparse, water")
plt.show()

# %% [raw] lang="zh"
# prior: -> 先验图：隐去
# % hidden, -> %，
# % of cells\nno longer so -> % 的像元\n已改变
# truth of the year -> 当年真值
# no class (sea) -> 无类别（海洋）
# urban, cropland, pasture, forest -> 城镇, 耕地, 牧场, 森林
# grass/shrub, sparse, water -> 草地与灌丛, 稀疏植被, 水体

# %% [markdown] lang="en"
# ## Train
#
# Cross entropy of the classes. The validation score is that of a whole rollout over ten years: *mIoU*, the intersection
# over union of map and truth, averaged over classes. *Persistence* is the map of the first year, unchanged. The *figure
# of merit* counts change alone: cells that changed in map and truth and to the same class, over all that changed in
# either. Persistence has 0 there by definition.

# %% [markdown] lang="zh"
# ## 训练
#
# 损失是类别的交叉熵。验证得分来自一次完整的十年推演：*mIoU* 是预测图与真值的交并比对各类别的平均；*persistence*（持续性
# 基线）是第一年的图保持不变；*figure of merit*（变化优度）只看变化：预测与真值都发生变化且变为同一类别的像元数，除以任
# 一方发生变化的像元总数。按定义，持续性基线的这一项为 0。

# %%
run = earthsr.train(config, overwrite=True, logger=logger)

# %% [markdown] lang="en"
# ## Scores
#
# On the test tiles, 1990 to 1999, from the true map of 1989, the *anchor*:
#
# - `rollout`: from the anchor on the model sees its own maps alone; the number to look at;
# - `no_prior` sees no map at all, `true_prior` each time the truth of the year before, which no projection has;
# - `persistence`: the anchor; `coarse_argmax`: the commonest class of the coarse cell; `allocation`: the anchor changed
#   just enough to have the coarse fractions, nearest to a class first.

# %% [markdown] lang="zh"
# ## 得分
#
# 在测试瓦片上，从 1989 年的真实图（*锚点*，anchor）出发，推演 1990 至 1999 年：
#
# - `rollout`：从锚点起模型只看到自己生成的图，这是最值得关注的一行；
# - `no_prior` 完全看不到先验图；`true_prior` 每次都能看到前一年的真值，而实际预估中不可能有；
# - `persistence`：锚点图保持不变；`coarse_argmax`：低分辨率格点内占比最大的类别；`allocation`：对锚点图做恰好满足低分辨
#   率比例的改动，优先改动离该类别最近的像元。

# %%
evaluation = earthsr.evaluate(run.best, backend=backend)
print(f"{'':>14}   mIoU   accuracy   figure of merit of change")
for name, row in evaluation.metrics["scores"].items():
    print(f"{name:>14}  {row['miou']:.3f}   {row['accuracy']:.3f}      {row['change']['figure_of_merit']:.3f}")

# %% [markdown] lang="en"
# Where little changes the anchor is hard to beat: most cells are right by standing still. What the rollout has more of
# is change that it foresaw, the more the further the years are from the anchor; small classes of few cells decide mIoU.

# %% [markdown] lang="zh"
# 变化很小时，锚点图很难被超越：大多数像元保持不变就是对的。推演多出来的正确部分是它预见到的变化，离锚点越远的年份越明
# 显；而 mIoU 主要取决于像元很少的小类别。

# %%
by_year = evaluation.metrics["groups"]
figure, panels = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
for name, style in (("rollout", "o-"), ("allocation", "^:"), ("persistence", "s--")):
    for axes, key in zip(panels, ("accuracy", "figure_of_merit"), strict=True):
        values = [by_year[year]["scores"][name][key] for year in sorted(by_year)]
        axes.plot([int(year) for year in sorted(by_year)], values, style, ms=4, label=name)
panels[0].set(title="Share of cells with the right class", xlabel="year", ylabel="accuracy (0 to 1)")
panels[1].set(title="Change since 1989", xlabel="year", ylabel="figure of merit (0 to 1)")
panels[0].legend()
plt.show()

# %% [raw] lang="zh"
# Share of cells with the right class -> 类别正确的像元比例
# accuracy (0 to 1) -> 准确率（0 到 1）
# Change since 1989 -> 1989 年以来的变化
# figure of merit (0 to 1) -> 变化优度（0 到 1）
# "year" -> "年份"

# %% [markdown] lang="en"
# ## A rollout over years
#
# `earthsr reconstruct` maps a whole grid: one map and a scenario in, a map for every year out. It works in pieces, so
# that memory does not grow with the grid, and writes GeoTIFF, NetCDF or Zarr with coordinates. `--match-areas` makes
# the areas of the classes in every coarse cell those of the scenario.

# %% [markdown] lang="zh"
# ## 逐年推演
#
# `earthsr reconstruct` 对整个网格制图：输入一幅图和一份情景，输出每一年的图。计算分块进行，内存占用不随网格增大；结果为
# 带坐标的 GeoTIFF、NetCDF 或 Zarr。`--match-areas` 使每个低分辨率格点内各类别的面积与情景一致。

# %% language="bash"
# exec 2>&1  # the log as output too: standard error is drawn on red
# cd runs/tutorial-land-use/dataset/archives
# earthsr reconstruct ../../run --anchor landuse_1989.tif --years 1989:1999 --match-areas \
#   --scenario scenario_historical.nc --scenario scenario_future.nc \
#   --static elevation=static.nc --static slope=static.nc --static soil=static.nc \
#   --static distance_to_water=static.nc --static latitude=static.nc \
#   --output ../../maps.nc --overwrite --backend $BACKEND

# %% [markdown] lang="en"
# The test band in the east, year by year. On the right what became of every cell since the anchor: blue is change that
# was foreseen, orange change that was missed, red change that did not happen.

# %% [markdown] lang="zh"
# 东部的测试条带，逐年变化。右图是各像元自锚点以来的情况：蓝色为预测到的变化，橙色为漏掉的变化，深红色为并未发生的变化。

# %%
with xarray.open_dataset(folder / "maps.nc", engine="h5netcdf", mask_and_scale=False) as maps:
    variable = next(name for name in maps.data_vars if maps[name].ndim == 3)
    codes = maps[variable].values
    made = world.table.index(codes, "maps.nc", codes != 255)  # from the table's codes to numbers of classes
    years = [int(year) for year in np.asarray(maps[maps[variable].dims[0]].dt.year)]
east = round((test_west - west) / grid.cell_x)
made = made[:, :, east:]
truth = np.stack([world.maps[world.years.index(year)] for year in years])[:, :, east:]
anchor = truth[years.index(1989)]
change = change_categories(truth, made, anchor, len(names))
kinds = ("unchanged", "right change", "wrong class", "missed", "false alarm")
kind_colours = ("#ffffff", "#0072b2", "#cc79a7", "#e69f00", "#8c1515")
since = ListedColormap([*kind_colours, "#dcdcdc"])

box = (test_west, extent[1], extent[2], extent[3])
figure, panels = plt.subplots(1, 3, figsize=(10.5, 4.6), layout="constrained", sharey=True)
pictures = [
    panels[0].imshow(shown(truth[0]), cmap=classes, norm=norm, extent=box, interpolation="nearest"),
    panels[1].imshow(shown(made[0]), cmap=classes, norm=norm, extent=box, interpolation="nearest"),
    panels[2].imshow(np.minimum(change[0], 5), cmap=since, vmin=-0.5, vmax=5.5, extent=box, interpolation="nearest"),
]
for axes in panels:
    axes.set_xlabel("longitude (°E)")
panels[0].set_ylabel("latitude (°N)")
panels[2].legend(
    handles=[Patch(facecolor=c, edgecolor="0.4", label=k) for c, k in zip(kind_colours, kinds, strict=True)],
    fontsize=7, loc="lower right",
)  # fmt: skip
legend(figure, "no class (sea), urban, cropland, pasture, forest, grass/shrub, sparse, water")


def frame(i):
    for picture, values in zip(pictures, (shown(truth[i]), shown(made[i]), np.minimum(change[i], 5)), strict=True):
        picture.set_data(values)
    panels[0].set_title(f"Truth, {years[i]}")
    panels[1].set_title(f"Rollout, {years[i]}")
    panels[2].set_title("Change since 1989")
    return pictures


animation = FuncAnimation(figure, frame, frames=len(years))
animation.save(folder / "rollout.gif", writer=PillowWriter(fps=2), dpi=62)
frame(len(years) - 1)
plt.show()
letters = base64.b64encode((folder / "rollout.gif").read_bytes()).decode()
display(HTML(f'<img alt="Truth, rollout and change since 1989, year by year" src="data:image/gif;base64,{letters}"/>'))

# %% [raw] lang="zh"
# Truth, {years[i]} -> 真值，{years[i]} 年
# Rollout, {years[i]} -> 推演，{years[i]} 年
# "Change since 1989" -> "1989 年以来的变化"
# "unchanged", "right change", "wrong class" -> "未变化", "正确变化", "类别错误"
# "missed", "false alarm" -> "漏报", "误报"
# longitude (°E) -> 经度（°E）
# latitude (°N) -> 纬度（°N）
# Truth, rollout and change since 1989, year by year -> 真值、推演与 1989 年以来的变化，逐年
# no class (sea) -> 无类别（海洋）
# urban, cropland, pasture, forest -> 城镇, 耕地, 牧场, 森林
# grass/shrub, sparse, water -> 草地与灌丛, 稀疏植被, 水体


# %% [markdown] lang="en"
# Maps of your own come in with `earthsr prepare landuse` (LUH2, HILDA+, any table of classes): `docs/landuse.md`. Whole
# globes, several processes, backwards in time: `docs/reconstruct.md`.

# %% [markdown] lang="zh"
# 自己的地图用 `earthsr prepare landuse` 导入（LUH2、HILDA+ 或任意类别表），见 `docs/landuse.md`；全球制图、多进程以及时
# 间上的反向推演，见 `docs/reconstruct.md`。
