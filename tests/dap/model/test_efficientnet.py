"""The encoder that has seen photographs: its convolutions are those that were published."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dap.errors import ModelFileInvalid
from dap.model.dap import IMAGENET_MEAN, IMAGENET_STD
from dap.model.efficientnet import EFFICIENTNET_SHAPES, EfficientNetEncoder, SameConv2d, read_imagenet

# Table 1 of arXiv 1905.11946 without squeeze-and-excitation: 4.65 million parameters with the classifier, which has
# 1280 features and 1000 classes.
PUBLISHED_PARAMETERS = 4_652_008
CLASSIFIER_PARAMETERS = 320 * 1280 + 2 * 1280 + 1280 * 1000 + 1000


def published_state(encoder: EfficientNetEncoder) -> dict[str, Tensor]:
    """Random weights in the published layout: convolutions without a bias, and batch norms."""
    generator = torch.Generator().manual_seed(3)

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, norm, convolution in encoder.convolutions():
            shape = list(convolution.weight.shape)
            if convolution is encoder.stem:
                shape[1] = 3
            yield f"{name}.weight", torch.randn(shape, generator=generator) * 0.2
            for part in ("weight", "bias", "running_mean"):
                yield f"{norm}.{part}", torch.randn(shape[0], generator=generator)
            yield f"{norm}.running_var", torch.rand(shape[0], generator=generator) + 0.5
            yield f"{norm}.num_batches_tracked", torch.tensor(1)
        yield "_fc.weight", torch.zeros(1000, 1280)

    return dict(tensors())


@pytest.fixture
def encoder() -> EfficientNetEncoder:
    torch.manual_seed(0)
    return EfficientNetEncoder(EFFICIENTNET_SHAPES["efficientnet-lite0"], spherical=True).eval()


def read(encoder: EfficientNetEncoder, state: dict[str, Tensor]) -> None:
    read_imagenet(encoder, state, IMAGENET_MEAN, IMAGENET_STD)


def batch_normed(features: Tensor, state: dict[str, Tensor], norm: str) -> Tensor:
    mean, variance, weight, bias = (
        state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return F.batch_norm(features, mean, variance, weight, bias, eps=1e-3)


def test_its_convolutions_have_the_published_number_of_parameters(encoder: EfficientNetEncoder) -> None:
    state = published_state(encoder)
    learnt = [
        tensor.numel()
        for name, tensor in state.items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked", "_fc.weight"))
    ]
    assert sum(learnt) + CLASSIFIER_PARAMETERS == PUBLISHED_PARAMETERS


def test_the_stem_sees_what_the_published_one_saw(encoder: EfficientNetEncoder) -> None:
    state = published_state(encoder)
    read(encoder, state)
    pixels = torch.randint(256, (1, 3, 32, 64), generator=torch.Generator().manual_seed(1)).float()
    published = F.conv2d((pixels - 127) / 128, state["_conv_stem.weight"], stride=2)
    expected = batch_normed(published, state, "_bn0")

    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    latitude = torch.randn(1, 2, 32, 64)  # not published, so it counts for nothing yet
    with torch.inference_mode():
        stem = encoder.stem(torch.cat([(pixels / 255 - mean) / std, latitude], dim=1))
    torch.testing.assert_close(stem[..., :15, :31], expected, atol=2e-5, rtol=1e-5)


def test_a_block_is_the_published_one(encoder: EfficientNetEncoder) -> None:
    state = published_state(encoder)
    read(encoder, state)
    features = torch.randn(1, 24, 8, 16)
    inner = F.relu6(batch_normed(F.conv2d(features, state["_blocks.2._expand_conv.weight"]), state, "_blocks.2._bn0"))
    around = F.pad(F.pad(inner, (1, 1, 0, 0), mode="circular"), (0, 0, 1, 1))
    filtered = F.conv2d(around, state["_blocks.2._depthwise_conv.weight"], groups=144)
    inner = F.relu6(batch_normed(filtered, state, "_blocks.2._bn1"))
    projected = batch_normed(F.conv2d(inner, state["_blocks.2._project_conv.weight"]), state, "_blocks.2._bn2")
    block = next(module for name, module in encoder.named_modules() if name == "stages.1.1")
    with torch.inference_mode():
        torch.testing.assert_close(block(features), features + projected, atol=1e-4, rtol=1e-4)


def test_no_stage_is_coarser_than_16_and_the_last_one_is_dilated_for_it(encoder: EfficientNetEncoder) -> None:
    with torch.inference_mode():
        taps = encoder(torch.zeros(1, 3, 64, 128))
    assert [tuple(tap.shape[1:]) for tap in taps] == [(24, 16, 32), (40, 8, 16), (112, 4, 8), (192, 4, 8)]
    depthwise = [module for module in encoder.modules() if isinstance(module, nn.Conv2d) and module.groups > 1]
    assert [convolution.dilation[0] for convolution in depthwise] == [1] * 12 + [2] * 4


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (5, 1, 1), (5, 1, 2), (3, 2, 1), (5, 2, 1)])
def test_same_padding_is_that_of_tensorflow(kernel: int, stride: int, dilation: int) -> None:
    convolution = SameConv2d(1, 1, kernel, stride=stride, dilation=dilation, spherical=False)
    # Of an even length the total is the kernel's reach less the stride; the end gets the odd one.
    total = dilation * (kernel - 1) + 1 - stride
    before, after = total // 2, (total + 1) // 2
    image = torch.randn(1, 1, 8, 12)
    padded = F.pad(image, (before, after, before, after))
    expected = F.conv2d(padded, convolution.weight, convolution.bias, stride=stride, dilation=dilation)
    torch.testing.assert_close(convolution(image), expected)
    assert expected.shape[-2:] == (8 // stride, 12 // stride)


def test_a_kernel_may_reach_more_than_once_around_the_sphere() -> None:
    convolution = SameConv2d(1, 1, 5, dilation=2, spherical=True)
    image = torch.randn(1, 1, 1, 2)
    around = F.pad(torch.cat([image] * 5, dim=-1), (0, 0, 4, 4))
    torch.testing.assert_close(convolution(image), F.conv2d(around, convolution.weight, convolution.bias, dilation=2))


@pytest.mark.parametrize("wrong", ["missing", "unexpected", "misshapen"])
def test_other_weights_are_refused(encoder: EfficientNetEncoder, wrong: str) -> None:
    state = published_state(encoder)
    if wrong == "missing":
        del state["_blocks.3._bn1.bias"]
    elif wrong == "unexpected":
        state["_blocks.16._project_conv.weight"] = torch.zeros(1)
    else:
        state["_blocks.3._bn1.bias"] = torch.zeros(7)
    with pytest.raises(ModelFileInvalid, match="EfficientNet-Lite0: 1 tensors differ"):
        read(encoder, state)
