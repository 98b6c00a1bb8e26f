"""The workload of land use: sources, data, task, maps, reconstruction and emulator of the U-Net."""
