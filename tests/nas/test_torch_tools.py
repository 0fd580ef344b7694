import json
import os

import pytest
import torch
from torch import nn

from nas.errors import DamagedFileError, MachineError
from nas.torch_tools import load_part, load_weights, save_weights, weights_metadata


def network():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).to(torch.float16)


def test_weights_and_texts_are_read_back(tmp_path):
    saved, read = network(), network()
    for with_checksum in (False, True):
        save_weights(saved, tmp_path / "w.safetensors", {"scores": "{}"}, with_checksum=with_checksum)
        load_weights(read, tmp_path / "w.safetensors")
        for name, tensor in saved.state_dict().items():
            torch.testing.assert_close(read.state_dict()[name], tensor, rtol=0, atol=0)
        texts = weights_metadata(tmp_path / "w.safetensors")
        assert (texts["scores"], "sha256" in texts) == ("{}", with_checksum)


@pytest.mark.parametrize("position", range(12))
def test_no_flipped_bit_is_loaded(tmp_path, position):
    path = tmp_path / "w.safetensors"
    save_weights(network(), path, with_checksum=True)
    content = bytearray(path.read_bytes())
    content[len(content) * position // 12] ^= 1
    path.write_bytes(content)
    with pytest.raises((DamagedFileError, RuntimeError), match=r"w\.safetensors|Missing key|not of this model|shape"):
        load_weights(network(), path)


def test_files_that_hold_no_weights_are_named(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(network(), path)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(DamagedFileError, match=r"w\.safetensors cannot be read as safetensors"):
        load_weights(network(), path)
    with pytest.raises(MachineError, match=r"w\.safetensors cannot be read.*No candidate is to blame"):
        load_part(network(), path)
    path.write_text(json.dumps({"no": "weights"}))
    with pytest.raises(DamagedFileError, match=r"w\.safetensors cannot be read as safetensors"):
        weights_metadata(path)
    with pytest.raises(FileNotFoundError):
        load_weights(network(), tmp_path / "none.safetensors")
