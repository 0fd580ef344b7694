"""Devices, by the `kind` under which a configuration names them."""

from latency.devices.base import Device
from latency.devices.fake_device import FakeDevice
from latency.devices.onnx_device import OnnxDevice
from latency.devices.torch_device import TorchCpuDevice, TorchCudaDevice

DEVICES: dict[str, type[Device]] = {
    "torch_cpu": TorchCpuDevice,
    "torch_cuda": TorchCudaDevice,
    "onnxruntime": OnnxDevice,
    "fake": FakeDevice,
}
