"""DEM super-resolution in five steps, in the order and words of MindEarth's tutorial.

Run it as it stands: python tutorials/dem_sr.py [torch|mindspore] [FOLDER]
It writes its own data (SRTM terrain that matplotlib ships), trains a small network and draws the figure of the
tutorial's end. One line, ``backend = …``, is all that differs between the frameworks.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

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
    load_yaml_config,
    plt_dem_data,
)
from earthsr.data.sample import write_sample_dem

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "dem_srnet_demo.yaml"


class DemSrTrainer(Trainer):
    """A trainer of one's own: override what is trained on, how, and what is watched."""

    def __init__(self, config, model, loss_fn, logger):
        super().__init__(config, model, loss_fn, logger, weather_data_source="DemSR")

    def get_dataset(self):
        """Training and validation data."""
        data, workers = self.config["data"], self.config["data"]["num_workers"]
        train = Dataset(DemData(data_params=data, run_mode="train"), num_workers=workers, shuffle=True, augment=True)
        valid = Dataset(DemData(data_params=data, run_mode="valid"), num_workers=workers, shuffle=False)
        return train.create_dataset(data["batch_size"]), valid.create_dataset(data["batch_size"])

    def get_optimizer(self):
        """The optimiser's spec; the backend implements it."""
        self.steps_each_epoch = self.train_dataset.get_dataset_size()
        self.logger.info(f"steps_per_epoch: {self.steps_each_epoch}")
        return OptimizerSpec(name=self.optimizer_params["name"], eps=self.optimizer_params["eps"], clip_norm=1.0)

    def get_callback(self):
        """What evaluates the model while it trains."""
        return EvaluateCallBack(self.model, self.valid_dataset, self.config, self.logger)


def main(backend: str, folder: Path, epochs: int = 6, features: int = 64, stride: int = 4) -> dict:
    """Run the five steps; returns the scores."""
    config = load_yaml_config(CONFIG)
    config["data"]["root_dir"] = str(folder / "dataset")
    config["summary"]["summary_dir"] = str(folder / "summary")
    config["optimizer"]["epochs"] = epochs
    config["model"]["features"] = features
    config["train"]["amp_level"] = "O2" if backend == "torch" else "O0"
    logger = create_logger(path=folder / "summary" / "results.log")

    # 1. Training data construction
    write_sample_dem(folder / "dataset", patch_size=config["data"]["patch_size"], stride=stride, overwrite=True)

    # 2. Model construction
    config["backend"] = backend
    model = init_model(config)

    # 3. Loss function
    loss_fn = MSELoss()

    # 4. Model training
    trainer = DemSrTrainer(config, model, loss_fn, logger)
    trainer.train(overwrite=True)

    # 5. Model evaluation and visualisation
    inference_module = InferenceModule(model, config, logger)
    test_dataset_generator = DemData(data_params=config["data"], run_mode="test")
    test_dataset = Dataset(
        test_dataset_generator, distribute=False, num_workers=config["data"]["num_workers"], shuffle=False
    )
    test_dataset = test_dataset.create_dataset(config["data"]["batch_size"])
    metrics = inference_module.eval(test_dataset)

    data = next(test_dataset.create_dict_iterator())
    inputs, labels = data["inputs"], data["labels"]
    prediction = inference_module.forecast(inputs)
    limits = float(labels[0].min()), float(labels[0].max())
    plt.figure(num="e_imshow", figsize=(15, 4.5), layout="constrained")
    for place, (array, title) in enumerate(
        ((inputs, "Low Resolution"), (labels, "Ground Truth"), (prediction, "Prediction")), start=1
    ):
        plt.subplot(1, 3, place)
        plt_dem_data(array[0, 0], title, limits=limits)
    plt.savefig(folder / "prediction.png", dpi=100)
    plt.close("all")
    logger.info(f"picture {folder / 'prediction.png'}")
    return metrics


if __name__ == "__main__":
    backend = sys.argv[1] if len(sys.argv) > 1 else "torch"
    main(backend, Path(sys.argv[2] if len(sys.argv) > 2 else "runs/tutorial"))
