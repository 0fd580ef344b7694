"""Devices that measure, by the `kind` under which a configuration names them."""

from latency.devices.base import Device
from latency.devices.fake_device import FakeDevice
from latency.devices.onnx_device import OnnxDevice
from latency.devices.remote_device import RemoteDevice
from latency.devices.torch_device import TorchCpuDevice, TorchCudaDevice

MEASURED: dict[str, type[Device]] = {
    "torch_cpu": TorchCpuDevice,
    "torch_cuda": TorchCudaDevice,
    "onnxruntime": OnnxDevice,
    "remote": RemoteDevice,
    "fake": FakeDevice,
}
