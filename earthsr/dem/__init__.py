"""The workload of elevation: preparation, data, task, prediction, scores and figures of DEM-SRNet."""
