"""Devices, by the `kind` under which a configuration names them."""

from latency.devices.base import Device
from latency.devices.fake_device import FakeDevice
from latency.devices.measured import MEASURED
from latency.devices.onnx_device import OnnxDevice
from latency.devices.predicted_device import PredictedDevice
from latency.devices.remote_device import RemoteDevice
from latency.devices.torch_device import TorchCpuDevice, TorchCudaDevice

DEVICES: dict[str, type[Device]] = {**MEASURED, "predicted": PredictedDevice}

__all__ = [
    "DEVICES",
    "Device",
    "FakeDevice",
    "OnnxDevice",
    "PredictedDevice",
    "RemoteDevice",
    "TorchCpuDevice",
    "TorchCudaDevice",
]
