"""What the paper reports, in percent, as it is printed there."""

from __future__ import annotations

# Table 1, "Validation Accuracy", LeNet-3C1L on MNIST.
TABLE_1: dict[str, dict[str, float]] = {
    "Standard BN": {"1.0": 98.49, "0.75": 98.78, "0.5": 96.59, "0.25": 98.49},
    "Switchable BN": {"1.0": 99.05, "0.75": 98.93, "0.5": 98.91, "0.25": 98.69},
    "AWN": {"1.0": 98.97, "0.75": 98.87, "0.5": 98.82, "0.25": 98.43},
}

# Table 2: area under the width-accuracy curve by network and data.
COLUMNS = ("AWN", "S-Net", "AWN+RS", "US-Net(4w)", "US-Net(10w)", "US-Net(20w)")
TABLE_2: dict[tuple[str, str], dict[str, float]] = {
    ("lenet3c1l", "fashion-mnist"): dict(zip(COLUMNS, (90.67, 83.78, 91.06, 90.40, 90.70, 90.74), strict=True)),
    ("lenet3c1l", "cifar10"): dict(zip(COLUMNS, (71.12, 56.99, 73.75, 67.84, 71.30, 72.45), strict=True)),
    ("lenet3c1l", "cifar100"): dict(zip(COLUMNS, (42.69, 26.94, 43.65, 40.12, 41.38, 41.80), strict=True)),
    ("mobilenetv2", "cifar10"): dict(zip(COLUMNS, (90.91, 50.97, 90.72, 90.10, 91.98, 92.09), strict=True)),
    ("mobilenetv2", "cifar100"): dict(zip(COLUMNS, (70.16, 49.84, 67.28, 66.69, 71.62, 72.24), strict=True)),
}

# Figure 6: area for LeNet-3C1L trained at full width alone, CIFAR-10.
FIGURE_6: dict[str, float] = {"triangular": 35.85, "ordinary": 20.51}
