"""Devices, by the `kind` under which a configuration names them."""

from latency.devices.base import Device
from latency.devices.measured import MEASURED
from latency.devices.predicted_device import PredictedDevice

DEVICES: dict[str, type[Device]] = {**MEASURED, "predicted": PredictedDevice}
