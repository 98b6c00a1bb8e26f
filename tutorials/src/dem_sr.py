# %% [markdown] lang="en"
# # DEM super-resolution in five steps
#
# [中文](zh/dem_sr.ipynb)
#
# A *digital elevation model* (DEM) is a raster of heights. Global ones are coarse: GEBCO has a cell every 15
# arc-seconds, some 450 m. DEM-SRNet (Zhang et al., Science Bulletin 2022) learns from regions with finer measurements,
# here 3 arc-seconds or 90 m, to make five cells out of one along each axis: *super-resolution* by a *scale* of 5.
#
# The steps are those of MindEarth's tutorial, in its order and with its names:
#
# 1. **Training data construction**
# 2. **Model construction**
# 3. **Loss function**
# 4. **Model training**
# 5. **Model evaluation and visualisation**
#
# One line says which framework computes. `backend = "torch"` is PyTorch, `backend = "mindspore"` is MindSpore; nothing
# else changes. `quick = True` makes network and training small: for a first look, or for MindSpore on a CPU.
#
# It takes about a minute on two cores and downloads nothing.

# %% [markdown] lang="zh"
# # 五步完成 DEM 超分辨率
#
# [English](../dem_sr.ipynb)
#
# *数字高程模型*（DEM）是记录地面高程的栅格数据。全球产品的分辨率较低：GEBCO 每 15 角秒（约 450 m）一个格点。DEM-SRNet
# （Zhang 等，Science Bulletin 2022）利用已有精细观测（此处为 3 角秒，约 90 m）的区域进行学习，把每个格点沿两个方向各细
# 分为五个，即*放大倍数*（scale）为 5 的*超分辨率*重建。
#
# 步骤、顺序和名称均与 MindEarth 教程一致：
#
# 1. **训练数据构建**
# 2. **模型构建**
# 3. **损失函数**
# 4. **模型训练**
# 5. **模型评估与可视化**
#
# 用哪个框架计算，只由一行代码决定：`backend = "torch"` 使用 PyTorch，`backend = "mindspore"` 使用 MindSpore，其余代码完
# 全相同。`quick = True` 会缩小网络并缩短训练，适合快速浏览，或在 CPU 上运行 MindSpore。
#
# 在两个 CPU 核上约需一分钟，无需下载任何数据。

# %%
backend = "torch"
quick = False

# %% [markdown] lang="en"
# The notebook works in the folder that holds `configs`: this one or one above it. What it writes goes to
# `runs/tutorial-dem-sr` there.

# %% [markdown] lang="zh"
# 本 notebook 以包含 `configs` 的目录（当前目录或其上级目录）为工作目录，生成的文件都写入其中的 `runs/tutorial-dem-sr`。

# %%
import json
import os
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import display

from earthsr import (
    Dataset,
    DemData,
    EvaluateCallBack,
    InferenceModule,
    MSELoss,
    OptimizerSpec,
    Trainer,
    create_logger,
    init_model,
    load_checkpoint,
    load_param_into_net,
    load_yaml_config,
    plt_dem_data,
)
from earthsr.evaluation.figures import loss_curves
from earthsr.samples.dem import write_sample_dem

here = Path.cwd()
os.chdir(next(folder for folder in (here, *here.parents) if (folder / "configs").is_dir()))
plt.rcParams["figure.dpi"] = 75

# %% [raw] lang="zh"
# + # 图中的中文用下列字体中已安装的显示；一种都没有时会显示为方框，请先安装其中之一。
# + from matplotlib import font_manager
# +
# + known = ("Noto Sans CJK SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei", "SimHei", "WenQuanYi Zen Hei")
# + installed = [font for font in known if font in font_manager.get_font_names()]
# + plt.rcParams["font.family"] = ["DejaVu Sans", *installed[:1]]

# %% [markdown] lang="en"
# A configuration has MindEarth's five sections: `model`, `data`, `optimizer`, `summary`, `train`. Values are read and
# set like those of a dictionary and are checked when they are set; MindEarth's own `DEM-SRNet.yaml` loads too.
# `amp_level` is the precision: `O0` computes in float32, `O2` mostly in 16 bits, which is faster on hardware made for
# it.

# %% [markdown] lang="zh"
# 配置沿用 MindEarth 的五个部分：`model`、`data`、`optimizer`、`summary`、`train`。其中的值可以像字典一样读取和设置，并
# 在设置时检查；MindEarth 自带的 `DEM-SRNet.yaml` 也可以直接加载。`amp_level` 是计算精度：`O0` 使用 float32，`O2` 主要使
# 用 16 位浮点数，在支持的硬件上更快。

# %%
config = load_yaml_config("configs/dem_srnet_demo.yaml")
config["backend"] = backend
config["data"]["root_dir"] = "runs/tutorial-dem-sr/dataset"
config["summary"]["summary_dir"] = "runs/tutorial-dem-sr/summary"
config["summary"]["valid_frequency"] = 1 if quick else 2
config["optimizer"]["epochs"] = 4 if quick else 10
config["optimizer"]["warmup_steps"] = 5 if quick else 25
config["model"]["features"] = 16 if quick else 64
config["model"]["num_blocks"] = 2 if quick else 8
config["train"]["amp_level"] = "O0"

logger = create_logger(path="runs/tutorial-dem-sr/summary/results.log")

# %% [markdown] lang="en"
# ## Step 1: training data construction
#
# The terrain is real and travels with matplotlib: 344 x 403 cells of SRTM at 3 arc-seconds, in Tennessee.
# Low-resolution (LR) cells are means of 5 x 5 high-resolution (HR) ones. *Patches* of 16 x 16 LR cells, with the 80 x
# 80 HR cells that belong to them, are cut from three blocks that do not touch: the west is for training, a strip for
# validation while the model trains, and the east for the test at the end. Patches drawn at random from one raster would
# let the model be tested on ground that it has seen.
#
# The files are MindEarth's: `train/train.h5`, `valid/valid.h5`, `test/test.h5`, each with the arrays `16_16` and
# `80_80`.

# %% [markdown] lang="zh"
# ## 第一步：训练数据构建
#
# 所用地形是真实数据，随 matplotlib 一同发布：美国田纳西州的 SRTM，344 x 403 个 3 角秒格点。低分辨率（LR）格点取 5 x 5
# 个高分辨率（HR）格点的平均值。每个*样本块*（patch）由 16 x 16 个 LR 格点及其对应的 80 x 80 个 HR 格点组成，分别取自三
# 个互不相接的区块：西部用于训练，中间一条用于训练过程中的验证，东部用于最后的测试。如果从同一幅栅格中随机抽取样本块，测
# 试区就会包含模型已经见过的地形。
#
# 文件布局与 MindEarth 相同：`train/train.h5`、`valid/valid.h5`、`test/test.h5`，各含数组 `16_16` 和 `80_80`。

# %%
counts = write_sample_dem(
    config["data"]["root_dir"], patch_size=config["data"]["patch_size"], stride=8 if quick else 3, overwrite=True
)
print("patches:", counts)

# %% [markdown] lang="en"
# `DemData` is one split. An item is an LR and an HR array of shape (channel, row, column), in metres. `Dataset` makes
# batches of it, here of the test split, in MindEarth's words.

# %% [markdown] lang="zh"
# `DemData` 表示一个数据子集，每个元素是一对 LR 与 HR 数组，形状为（通道，行，列），单位为米。`Dataset` 由它生成批数据；
# 下面按 MindEarth 的写法构建测试集。

# %%
test_dataset_generator = DemData(data_params=config["data"], run_mode="test")
test_dataset = Dataset(
    test_dataset_generator, distribute=False, num_workers=config["data"]["num_workers"], shuffle=False
)
test_dataset = test_dataset.create_dataset(config["data"]["batch_size"])
data = next(test_dataset.create_dict_iterator())
inputs, labels = data["inputs"], data["labels"]
print("inputs", inputs.shape, "labels", labels.shape)

plt.figure(figsize=(9, 4), layout="constrained")
limits = float(labels[0].min()), float(labels[0].max())
plt.subplot(1, 2, 1)
plt_dem_data(inputs[0, 0], "LR patch of the test split: 16 x 16 cells of 15 arc-seconds", "elevation (m)", limits)
plt.subplot(1, 2, 2)
plt_dem_data(labels[0, 0], "the same ground in HR: 80 x 80 cells of 3 arc-seconds", "elevation (m)", limits)
plt.show()

# %% [raw] lang="zh"
# LR patch of the test split: 16 x 16 cells of 15 arc-seconds -> 测试集的 LR 样本块：16 x 16 个 15 角秒格点
# the same ground in HR: 80 x 80 cells of 3 arc-seconds -> 同一区域的 HR：80 x 80 个 3 角秒格点
# elevation (m) -> 高程（m）

# %% [markdown] lang="en"
# ## Step 2: model construction
#
# DEM-SRNet is a convolution, a row of residual blocks, and an upsampling by the scale. The paper's has 42 blocks of 256
# features (`configs/dem_srnet.yaml`); this one has 8 of 64 and learns what is missing from a bicubic surface
# (`residual_over`), so that it begins as good as bicubic interpolation and gets better from there.
#
# The model is described once, without a framework. Its initial weights come from that description and a seed: PyTorch
# and MindSpore begin with the same numbers.

# %% [markdown] lang="zh"
# ## 第二步：模型构建
#
# DEM-SRNet 由一个卷积层、一串残差块和一次按放大倍数进行的上采样组成。论文中的网络有 42 个残差块、256 个特征通道
# （`configs/dem_srnet.yaml`）；这里用 8 个残差块、64 个特征通道，并让网络学习双三次插值曲面所缺少的部分
# （`residual_over`），因此训练的起点就相当于双三次插值，之后逐步改进。
#
# 模型只描述一次，与框架无关。初始权重由这份描述和随机种子得到，因此 PyTorch 与 MindSpore 从完全相同的数值出发。

# %%
model = init_model(config)
spec = model.spec
print(f"{spec.num_blocks} blocks of {spec.features} features, {spec.parameter_count:,} parameters, scale {spec.scale}")

# %% [markdown] lang="en"
# ## Step 3: loss function
#
# The mean squared error of normalised heights. `MSELoss()` is a description too, which either framework carries out.

# %% [markdown] lang="zh"
# ## 第三步：损失函数
#
# 采用归一化高程的均方误差。`MSELoss()` 同样只是一份描述，由所选框架执行。

# %%
loss_fn = MSELoss()

# %% [markdown] lang="en"
# ## Step 4: model training
#
# A trainer of one's own overrides what it wants to decide: `get_dataset` (what is learnt from, here with the eight
# symmetries of the square as augmentation), `get_optimizer` (how; it returns a description of the optimiser),
# `get_callback` (what is watched). The rest, such as the order of samples, the learning rate by step, checkpoints and
# resuming, is `Trainer`'s, and the same on both frameworks.
#
# The scores of the validation strip are root mean square errors (RMSE) in metres, beside that of bicubic interpolation.

# %% [markdown] lang="zh"
# ## 第四步：模型训练
#
# 自定义的训练器只需重写希望自行决定的部分：`get_dataset`（用什么数据训练，这里以正方形的八种对称变换做数据增强）、
# `get_optimizer`（如何优化，返回优化器的描述）、`get_callback`（训练时观察什么）。样本顺序、逐步学习率、检查点和断点续
# 训等其余工作由 `Trainer` 完成，在两个框架上完全一致。
#
# 日志中的验证得分是以米为单位的均方根误差（RMSE），并与双三次插值（bicubic）对比。


# %%
class DemSrTrainer(Trainer):
    def __init__(self, config, model, loss_fn, logger):
        super().__init__(config, model, loss_fn, logger, weather_data_source="DemSR")

    def get_dataset(self):
        data, workers = self.config["data"], self.config["data"]["num_workers"]
        train = Dataset(DemData(data_params=data, run_mode="train"), num_workers=workers, shuffle=True, augment=True)
        valid = Dataset(DemData(data_params=data, run_mode="valid"), num_workers=workers, shuffle=False)
        return train.create_dataset(data["batch_size"]), valid.create_dataset(data["batch_size"])

    def get_optimizer(self):
        self.steps_each_epoch = self.train_dataset.get_dataset_size()
        self.logger.info(f"steps_per_epoch: {self.steps_each_epoch}")
        return OptimizerSpec(name=self.optimizer_params["name"], eps=self.optimizer_params["eps"], clip_norm=1.0)

    def get_callback(self):
        return EvaluateCallBack(self.model, self.valid_dataset, self.config, self.logger)


trainer = DemSrTrainer(config, model, loss_fn, logger)
result = trainer.train(overwrite=True)

# %% [markdown] lang="en"
# Every logged step is a line of `metrics.jsonl` in the run folder. On the left the loss falls while the learning rate
# rises, then decays; on the right the validation error against bicubic's.

# %% [markdown] lang="zh"
# 每个记录步对应运行目录中 `metrics.jsonl` 的一行。左图：学习率先升后降，损失持续下降；右图：验证误差与双三次插值的对
# 比。

# %%
records = [json.loads(line) for line in (trainer.run.path / "metrics.jsonl").read_text().splitlines()]
figure = loss_curves(records)
figure.set_dpi(75)
words = (
    ("Training: loss and learning rate", "step", "loss (normalised)", ("step", "mean of the epoch")),
    ("Validation: error", "epoch", "RMSE (m)", ("model", "bicubic")),
)
for axes, (title, across, up, lines) in zip(figure.axes, words, strict=False):
    axes.set_title(title, fontsize=10)
    axes.set(xlabel=across, ylabel=up)
    axes.legend(lines, fontsize=8)
figure.axes[2].set_ylabel("learning rate")
display(figure)

# %% [raw] lang="zh"
# Training: loss and learning rate -> 训练：损失与学习率
# "step" -> "步"
# loss (normalised) -> 损失（归一化）
# mean of the epoch -> 每轮平均
# Validation: error -> 验证：误差
# "epoch" -> "轮"
# RMSE (m) -> RMSE（m）
# ("model", "bicubic") -> ("模型", "双三次插值")
# "learning rate" -> "学习率"

# %% [markdown] lang="en"
# ## Step 5: model evaluation and visualisation
#
# `load_checkpoint` takes the best checkpoint of the run folder (the one with the smallest validation error), and
# `load_param_into_net` puts it into a model. `InferenceModule` scores it on the test block: every patch counts once, in
# metres, less a border of one LR cell where neighbours are missing.
#
# `nearest`, `bilinear` and `bicubic` are interpolations. `conservative` is bicubic corrected so that means over LR
# cells are the LR values again: whatever the network has learnt from terrain is beyond that row.

# %% [markdown] lang="zh"
# ## 第五步：模型评估与可视化
#
# `load_checkpoint` 读取运行目录中的最佳检查点（验证误差最小者），`load_param_into_net` 将其载入模型。`InferenceModule`
# 在测试区块上评分：每个样本块只计一次，单位为米，四周各去掉一个缺少邻点的 LR 格点。
#
# `nearest`、`bilinear`、`bicubic` 分别是最近邻、双线性和双三次插值。`conservative` 是修正后的双三次插值，使每个 LR 格点
# 内的平均值仍等于 LR 值；优于这一行的部分，才是网络真正从地形中学到的。

# %%
params = load_checkpoint(config["summary"]["summary_dir"])
load_param_into_net(model, params)
inference_module = InferenceModule(model, config, logger)
metrics = inference_module.eval(test_dataset)

scores = {name: values["rmse"] for name, values in metrics["scores"].items()}
for name, rmse in sorted(scores.items(), key=lambda item: item[1]):
    print(f"{name:>13}: RMSE {rmse:5.2f} m, {100 * (rmse / scores['bicubic'] - 1):+5.1f} % against bicubic")

# %% [markdown] lang="en"
# `forecast` enlarges arrays in metres. The three pictures share one scale of heights.

# %% [markdown] lang="zh"
# `forecast` 对以米为单位的数组做超分辨率重建。三幅图使用同一高程色标。

# %%
prediction = inference_module.forecast(inputs)
pictures = ((inputs, "Low Resolution"), (labels, "Ground Truth"), (prediction, "Prediction"))
plt.figure(num="e_imshow", figsize=(15, 4.5), layout="constrained")
for place, (array, title) in enumerate(pictures, start=1):
    plt.subplot(1, 3, place)
    plt_dem_data(array[0, 0], title, "elevation (m)", limits)
plt.show()

# %% [raw] lang="zh"
# Low Resolution -> 低分辨率（LR）
# Ground Truth -> 真值（HR）
# "Prediction" -> "预测"
# elevation (m) -> 高程（m）

# %% [markdown] lang="en"
# **Where to go from here**
#
# - Set `backend = "mindspore"` and run it again, or train on one framework and carry on with the other:
#   [switch_backend](switch_backend.ipynb).
# - Rasters of your own, with their coordinates: [own_data](own_data.ipynb).
# - The command line does the same: `earthsr train configs/dem_srnet_demo.yaml --backend torch`, then `earthsr evaluate
#   runs/demo --backend torch`.

# %% [markdown] lang="zh"
# **下一步**
#
# - 设 `backend = "mindspore"` 后重新运行；或在一个框架上训练，再换另一个框架继续：
#   [switch_backend](switch_backend.ipynb)。
# - 使用自己的、带坐标的栅格数据：[own_data](own_data.ipynb)。
# - 命令行可完成同样的工作：先 `earthsr train configs/dem_srnet_demo.yaml --backend torch`，再
#   `earthsr evaluate runs/demo --backend torch`。
