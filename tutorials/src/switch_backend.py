# %% [markdown] lang="en"
# # Train here, carry on there
#
# [中文](zh/switch_backend.ipynb)
#
# A run begins on one framework and is carried on by the other, as when a machine with NVIDIA GPUs is yours this month
# and one with Ascend NPUs the next. Then a *parity report* shows how far PyTorch and MindSpore are apart, layer by
# layer.
#
# A checkpoint holds weights and the optimiser's moments under names that belong to neither framework, and the position
# in the order of samples; the learning rate of a step is decided outside of both. So nothing has to be converted.
#
# `backend` is where the run begins; the other one carries it on. The model is small (14,112 parameters), since
# MindSpore's convolutions are slow on a CPU; `quick = True` shortens training and report. It takes one to two minutes
# on two cores.

# %% [markdown] lang="zh"
# # 在此训练，换处继续
#
# [English](../switch_backend.ipynb)
#
# 一次训练从一个框架开始，由另一个框架接着完成：例如这个月使用 NVIDIA GPU，下个月换成昇腾 NPU。随后用*一致性报告*
# （parity report）逐层比较 PyTorch 与 MindSpore 相差多少。
#
# 检查点以不属于任何框架的名称保存权重和优化器的动量，并记录样本顺序中的位置；每一步的学习率也在框架之外确定。因此无需任
# 何转换。
#
# `backend` 是训练开始时所用的框架，之后由另一个框架继续。MindSpore 的卷积在 CPU 上较慢，所以这里的模型很小（14,112 个参
# 数）；`quick = True` 会缩短训练和报告。在两个 CPU 核上约需一到两分钟。

# %%
backend = "torch"
quick = False

# %% [markdown] lang="en"
# This notebook needs both frameworks. Where one is missing the next cell says so and stops.

# %% [markdown] lang="zh"
# 本 notebook 需要同时安装两个框架。如果缺少其中之一，下面的单元会给出说明并停止。

# %%
from earthsr.backend import available_backends

other = "mindspore" if backend == "torch" else "torch"
known = available_backends()
missing = [name for name in (backend, other) if not known[name].installed()]
if missing:
    raise SystemExit(
        f"Both frameworks are needed here, and {' and '.join(missing)} is not installed.\n"
        "In a clone: pip install --constraint constraints.txt -e '.[torch,mindspore,tutorials]', then restart.\n"
        "With one framework on each of two machines: earthsr train … --resume carries a run on from its folder, and\n"
        "earthsr parity … --backend torch --record FILE, then --backend mindspore --against FILE, compares them."
    )
for name in (backend, other):
    print(f"{name} {known[name].version()}")

# %%
import json
import os
import signal
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display

import earthsr
from earthsr.check.parity import run_parity
from earthsr.check.parity_compare import text_table
from earthsr.samples.dem import write_sample_dem

here = Path.cwd()
os.chdir(next(folder for folder in (here, *here.parents) if (folder / "configs").is_dir()))
plt.rcParams["figure.dpi"] = 80

# %% [raw] lang="zh"
# + # 图中的中文用下列字体中已安装的显示；一种都没有时会显示为方框，请先安装其中之一。
# + from matplotlib import font_manager
# +
# + known = ("Noto Sans CJK SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei", "SimHei", "WenQuanYi Zen Hei")
# + installed = [font for font in known if font in font_manager.get_font_names()]
# + plt.rcParams["font.family"] = ["DejaVu Sans", *installed[:1]]

# %% [markdown] lang="en"
# ## One configuration for both
#
# The terrain that matplotlib ships (SRTM, 3 arc-seconds), enlarged five times; float32 (`O0`), so that differences are
# those of rounding and not of a precision.

# %% [markdown] lang="zh"
# ## 两个框架共用一份配置
#
# 数据是随 matplotlib 发布的地形（SRTM，3 角秒），放大倍数为 5；采用 float32（`O0`），这样差异只来自舍入，而不来自精度设
# 置。


# %%
def configuration(folder):
    config = earthsr.load_yaml_config("configs/dem_srnet_demo.yaml")
    config["data"]["root_dir"] = "runs/tutorial-switch/dataset"
    config["summary"]["summary_dir"] = folder
    config["summary"]["log_every"] = 1
    config["model"]["features"], config["model"]["num_blocks"] = 16, 2
    config["optimizer"]["epochs"] = 4 if quick else 6
    config["optimizer"]["learning_rate"] = 1e-3
    config["optimizer"]["warmup_steps"] = 5
    config["train"]["amp_level"] = "O0"
    return config


counts = write_sample_dem("runs/tutorial-switch/dataset", stride=8 if quick else 5, overwrite=True)
print("patches:", counts)
logger = earthsr.create_logger()

# %% [markdown] lang="en"
# ## A run that is not interrupted
#
# All epochs on `backend`, to compare with.

# %% [markdown] lang="zh"
# ## 不中断的训练
#
# 全部轮次都在 `backend` 上完成，作为对照。

# %%
whole = earthsr.train(configuration("runs/tutorial-switch/whole"), backend=backend, overwrite=True, logger=logger)

# %% [markdown] lang="en"
# ## A run that changes frameworks
#
# A scheduler that takes a machine away sends SIGTERM first. Here the run sends it to itself when half of its epochs are
# done: it writes a checkpoint at the next step, in the middle of an epoch, and ends.

# %% [markdown] lang="zh"
# ## 中途更换框架的训练
#
# 作业调度系统收回机器之前会先发送 SIGTERM 信号。这里让训练在完成一半轮次后给自己发送该信号：它在下一步（一个轮次的中
# 间）写出检查点，然后结束。

# %%
config = configuration("runs/tutorial-switch/moved")
half = config["optimizer"]["epochs"] // 2


class TakenAway(earthsr.EvaluateCallBack):
    def epoch(self, trainer, record):
        if record["epoch"] == half:
            signal.raise_signal(signal.SIGTERM)


class InterruptedTrainer(earthsr.Trainer):
    def get_callback(self):
        return TakenAway(self.model, self.valid_dataset, self.config, self.logger)


model = earthsr.init_model(config, backend=backend)
begun = InterruptedTrainer(config, model, earthsr.MSELoss(), logger).train(overwrite=True)
print(f"ended by {begun.interrupted_by} after step {begun.steps}, on {backend}")

# %% [markdown] lang="en"
# The other framework carries on from the run folder. `resume=True` is all that it takes; on the command line, `earthsr
# train CONFIG --resume --backend mindspore`.

# %% [markdown] lang="zh"
# 另一个框架从运行目录继续训练，只需 `resume=True`；命令行写法是 `earthsr train CONFIG --resume --backend mindspore`。

# %%
moved = earthsr.train(config, backend=other, resume=True, logger=logger)

# %% [markdown] lang="en"
# Both runs side by side. The red dots are the relative difference of their losses, step by step: zero while both run on
# the same framework (drawn at 1e-9), and rounding from the change on.

# %% [markdown] lang="zh"
# 两次训练的对比。红点是每一步损失的相对差异：在同一框架上时为零（画在 1e-9 处），更换框架之后只有舍入误差。


# %%
def losses(run):
    records = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    return {record["step"]: record["loss"] for record in records if "gradient_norm" in record}


first, second = losses(whole), losses(moved)
steps = sorted(first)
gaps = [abs(second[step] - first[step]) / first[step] for step in steps]

figure, (axes, below) = plt.subplots(2, 1, figsize=(9, 5.4), layout="constrained", sharex=True, height_ratios=(2, 1))
axes.semilogy(steps, [first[step] for step in steps], lw=5, alpha=0.35, label=f"{backend} all the way")
for name, part in ((backend, [s for s in steps if s <= begun.steps]), (other, [s for s in steps if s > begun.steps])):
    axes.semilogy(part, [second[step] for step in part], lw=1.5, label=f"moved run, on {name}")
axes.set(ylabel="training loss (normalised)", title="One run on two frameworks")
below.semilogy(steps, np.maximum(gaps, 1e-9), ".", color="tab:red")
below.set(xlabel="step", ylabel="relative difference", ylim=(3e-10, 1e-4), title="Difference of the two runs' losses")
below.grid(alpha=0.3, axis="y")
for panel in (axes, below):
    panel.axvline(begun.steps + 0.5, color="0.5", ls=":", label="SIGTERM, then resumed")
axes.legend(fontsize=9)
plt.show()
print(f"largest relative difference of a loss: {max(gaps):.1e}")

# %% [raw] lang="zh"
# {backend} all the way -> 全程使用 {backend}
# moved run, on {name} -> 更换框架的训练，在 {name} 上
# training loss (normalised) -> 训练损失（归一化）
# One run on two frameworks -> 一次训练，两个框架
# xlabel="step" -> xlabel="步"
# "relative difference" -> "相对差异"
# Difference of the two runs' losses -> 两次训练损失的差异
# SIGTERM, then resumed -> SIGTERM，随后恢复

# %% [markdown] lang="en"
# ## The parity report
#
# `run_parity` gives both frameworks the same weights and batches and compares everything in between: outputs of all
# layers, loss, gradients, Adam's moments, the course of training, a predicted raster. Of each quantity the table has
# the array that comes nearest to its tolerance.
#
# *Own noise* is how much a framework differs from itself when its sums are taken in another order. Differences of that
# size are float32's rounding and nobody's fault; the tolerance is a small fixed part and a few times the own noise.

# %% [markdown] lang="zh"
# ## 一致性报告
#
# `run_parity` 让两个框架使用相同的权重和批数据，并比较其间的一切：所有层的输出、损失、梯度、Adam 的动量、训练过程以及预
# 测的栅格。表中每个量只列出最接近容差的那个数组。
#
# *自身噪声*（own noise）是指同一框架改变求和次序后与自己的差异。这种量级的差异来自 float32 的舍入，并非实现有误；容差由
# 一个很小的固定值加上自身噪声的若干倍构成。

# %%
report = run_parity(
    configuration("runs/tutorial-switch/parity"),
    backends=(backend, other),
    steps=4 if quick else 10,
    noise=not quick,
    output=Path("runs/tutorial-switch/parity"),
)
print(text_table(report.comparison))

# %%
display(Image(filename=report.files["figure"], width=1000))

# %% [markdown] lang="en"
# Points have to stay below the dashed lines. The command line writes the same table, figure and a JSON file, and ends
# with exit code 1 where a tolerance is exceeded: `earthsr parity configs/dem_srnet_demo.yaml`. `docs/parity.md` gives
# the reason of every tolerance.

# %% [markdown] lang="zh"
# 图中的点应位于虚线以下（该图取自程序输出的报告，标注为英文）。命令行 `earthsr parity configs/dem_srnet_demo.yaml` 输出
# 同样的表格、图和一个 JSON 文件，超出容差时以退出码 1 结束。`docs/parity.md` 说明了每个容差的依据。
