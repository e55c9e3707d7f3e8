import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from dap.errors import TrainingError
from dap.model.dap import NetworkOutput
from training.config import LOSS_PRESETS, LossWeights
from training.losses import (
    LOSSES,
    Truth,
    gradient_matching,
    log_l1,
    range_cross_entropy,
    range_dice,
    range_squared_error,
    silog,
    solid_angle_weights,
    training_loss,
)

B, H, W = 2, 16, 32
THRESHOLDS = (10.0, 20.0, 50.0, 100.0)
NONE = replace(LossWeights(), **dict.fromkeys(LOSSES, 0.0))  # type: ignore[arg-type]
ALL = replace(NONE, **dict.fromkeys(LOSSES, 1.0), range_balance=0.5, fidelity_size=12)  # type: ignore[arg-type]
SURE = 40.0


def everywhere(value: float = 1.0) -> Tensor:
    return torch.full((B, H, W), value)


def output(log_depth: Tensor, logits: Tensor) -> NetworkOutput:
    return NetworkOutput(log_depth.exp(), log_depth, logits)


def random_truth(seed: int = 0) -> Truth:
    """Rooms and far walls, some sky, some holes."""
    generator = torch.Generator().manual_seed(seed)
    depth = torch.rand(B, H, W, generator=generator) * 150 + 0.2
    depth[:, :3] = torch.inf
    return Truth(depth, torch.rand(B, H, W, generator=generator) > 0.1)


def random_output(seed: int = 1) -> NetworkOutput:
    generator = torch.Generator().manual_seed(seed)
    return output(torch.randn(B, H, W, generator=generator), torch.randn(B, 4, H, W, generator=generator))


@pytest.mark.parametrize("scale_invariance", [0.0, 0.5, 0.85, 1.0])
def test_silog_of_a_wrong_scale_is_what_the_invariance_leaves_of_it(scale_invariance: float) -> None:
    off = math.log(3)
    expected = math.sqrt((1 - scale_invariance) * off**2 + 1e-6) - 1e-3
    assert silog(everywhere(off), everywhere(), scale_invariance).item() == pytest.approx(expected, abs=1e-6)


def test_silog_of_errors_that_cancel_is_their_root_mean_square() -> None:
    residual = everywhere(0.3)
    residual[..., : W // 2] = -0.3
    assert silog(residual, everywhere()).item() == pytest.approx(math.sqrt(0.09 + 1e-6) - 1e-3, rel=1e-5)


def test_silog_takes_each_image_by_itself() -> None:
    residual = everywhere(0.4)
    residual[1] = -0.4
    together = silog(residual, everywhere(), 1.0)
    assert together.item() == pytest.approx(0, abs=1e-6)


def test_log_l1_of_twice_the_depth_is_the_logarithm_of_two() -> None:
    assert log_l1(everywhere(math.log(2)), everywhere()).item() == pytest.approx(math.log(2))


def test_masked_pixels_do_not_count_and_the_rest_is_not_diluted() -> None:
    residual, weight = everywhere(0.2), everywhere()
    residual[:, :, ::2], weight[:, :, ::2] = 7.0, 0.0
    assert log_l1(residual, weight).item() == pytest.approx(0.2)
    assert silog(residual, weight, 0.0).item() == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize("height", [16, 64])
def test_an_error_in_the_row_at_the_pole_counts_by_the_share_of_the_sphere_it_covers(height: int) -> None:
    residual = torch.zeros(1, height, 2 * height)
    residual[:, 0] = 1.0
    weight = solid_angle_weights(height, 2 * height).expand_as(residual)
    cap = (1 - math.cos(math.pi / height)) / 2
    assert log_l1(residual, weight).item() == pytest.approx(cap, rel=1e-4)


@pytest.mark.parametrize(("scales", "expected"), [(1, 2 / W), (2, (2 + 4) / 2 / W), (3, (2 + 4 + 8) / 3 / W)])
def test_gradient_matching_of_a_half_turn_counts_both_of_its_edges_at_each_scale(scales: int, expected: float) -> None:
    """One edge in the middle, one at the border, which is no border on a circle; 2^k columns see an edge 2^k apart."""
    residual = everywhere(0.0)
    residual[..., : W // 2] = 1.0
    assert gradient_matching(residual, everywhere(), scales).item() == pytest.approx(expected)


def test_gradient_matching_of_a_slope_in_latitude_is_the_slope_at_each_distance() -> None:
    residual = 0.01 * torch.arange(float(H))[None, :, None].expand(B, H, W)
    assert gradient_matching(residual, everywhere(), 3).item() == pytest.approx(0.01 * (1 + 2 + 4) / 3)


def test_gradient_matching_does_not_look_across_the_edge_of_a_mask() -> None:
    residual, weight = everywhere(0.0), everywhere()
    residual[..., : W // 2], weight[..., : W // 2] = 5.0, 0.0
    assert gradient_matching(residual, weight).item() == 0


def test_gradient_matching_leaves_out_scales_that_do_not_fit() -> None:
    residual = random_output().log_depth
    assert torch.equal(gradient_matching(residual, everywhere(), 9), gradient_matching(residual, everywhere(), 4))


def test_cross_entropy_of_not_knowing_is_the_logarithm_of_two() -> None:
    target = torch.randint(0, 2, (B, 4, H, W)).float()
    assert range_cross_entropy(torch.zeros(B, 4, H, W), target, everywhere()).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.875])
def test_balance_moves_the_classes_from_their_shares_to_halves(share: float, balance: float) -> None:
    """All pixels have the logit 1: those in range lose log(1 + 1/e), the others log(1 + e)."""
    target = torch.zeros(B, 4, H, W)
    target[..., : int(share * W)] = 1
    inside, beyond = share ** (1 - balance), (1 - share) ** (1 - balance)
    expected = (inside * math.log1p(math.exp(-1)) + beyond * math.log1p(math.e)) / (inside + beyond)
    loss = range_cross_entropy(torch.ones(B, 4, H, W), target, everywhere(), balance)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_balance_changes_nothing_where_there_is_one_class_only(target: float) -> None:
    logits, all_alike = random_output().range_logits, torch.full((B, 4, H, W), target)
    plain, balanced = (range_cross_entropy(logits, all_alike, everywhere(), balance) for balance in (0.0, 1.0))
    assert balanced.item() == pytest.approx(plain.item(), rel=1e-5)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_squared_error_of_a_probability_follows_from_the_share_in_range(probability: float) -> None:
    target = torch.zeros(B, 4, H, W)
    target[..., : W // 4] = 1
    logits = torch.full((B, 4, H, W), math.log(probability / (1 - probability)))
    expected = 0.25 * (1 - probability) ** 2 + 0.75 * probability**2
    assert range_squared_error(logits, target, everywhere()).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_dice_of_not_knowing_follows_from_the_share_in_range(share: float) -> None:
    target = torch.zeros(B, 4, H, W)
    target[..., : int(share * W)] = 1
    expected = 1 - (2 * 0.5 * share + 1e-3) / (0.5 + share + 1e-3)
    assert range_dice(torch.zeros(B, 4, H, W), target, everywhere()).item() == pytest.approx(expected, rel=1e-5)


def test_dice_of_nothing_in_range_and_nothing_predicted_is_zero() -> None:
    empty = torch.zeros(B, 4, H, W)
    assert range_dice(empty - SURE, empty, everywhere()).item() == pytest.approx(0, abs=1e-6)


def test_every_loss_is_zero_at_the_truth() -> None:
    truth = random_truth()
    at_truth = output(truth.log_depth, (2 * truth.in_range(THRESHOLDS) - 1) * SURE)
    total, terms = training_loss(at_truth, truth, THRESHOLDS, ALL)
    assert list(terms) == list(LOSSES)
    assert {name: round(term.item(), 6) for name, term in terms.items()} == dict.fromkeys(terms, 0)
    assert total.item() == pytest.approx(0, abs=1e-6)


def test_the_total_is_the_weighted_sum_and_a_factor_of_zero_leaves_a_loss_out() -> None:
    weights = LossWeights(silog=2, log_l1=0, gradient=3, range_cross_entropy=0, range_dice=0)
    total, terms = training_loss(random_output(), random_truth(), THRESHOLDS, weights)
    assert set(terms) == {"silog", "gradient"}
    assert total.item() == pytest.approx(2 * terms["silog"].item() + 3 * terms["gradient"].item())


@pytest.mark.parametrize("columns", [1, 5, 13, W // 2])
@pytest.mark.parametrize("name", LOSSES)
def test_a_yaw_roll_of_panorama_and_truth_changes_no_loss(name: str, columns: int) -> None:
    """The views of dense fidelity repeat after half a turn only."""
    columns = W // 2 if name == "dense_fidelity" else columns
    prediction, truth = random_output(), random_truth()
    rolled = NetworkOutput(*(part.roll(columns, -1) for part in prediction))
    rolled_truth = Truth(truth.depth.roll(columns, -1), truth.known.roll(columns, -1))
    one, other = (training_loss(*pair, THRESHOLDS, ALL)[1] for pair in ((prediction, truth), (rolled, rolled_truth)))
    assert one[name].item() > 0
    assert other[name].item() == pytest.approx(one[name].item(), rel=1e-5)


BAD_TRUTHS: dict[str, Callable[[], Truth]] = {
    "nothing known": lambda: Truth(everywhere(), everywhere() < 0),
    "all sky": lambda: Truth(everywhere(torch.inf), everywhere() > 0),
    "all too far": lambda: Truth(everywhere(150.0), everywhere() > 0),
    "zeros": lambda: Truth(everywhere(0.0), everywhere() > 0),
    "not a number where unknown": lambda: Truth(everywhere(torch.nan), everywhere() < 0),
    "one pixel": lambda: Truth(everywhere(2.0), torch.arange(B * H * W).reshape(B, H, W) == 7),
    "the prediction itself": lambda: Truth(everywhere(1.0), everywhere() > 0),
}


@pytest.mark.parametrize("predicted", [0.0, -80.0, math.log(100)])
@pytest.mark.parametrize("norm", ["own", "truth"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", BAD_TRUTHS)
def test_loss_and_gradient_are_finite_when_the_truth_is(
    name: str, dtype: torch.dtype, norm: Literal["own", "truth"], predicted: float
) -> None:
    log_depth = torch.full((B, H, W), predicted, dtype=dtype, requires_grad=True)
    logits = torch.full((B, 4, H, W), predicted, dtype=dtype, requires_grad=True)
    weights = replace(ALL, fidelity_norm=norm)
    total, _ = training_loss(output(log_depth, logits), BAD_TRUTHS[name](), THRESHOLDS, weights)
    total.backward()
    assert log_depth.grad is not None
    assert logits.grad is not None
    assert total.isfinite()
    assert log_depth.grad.isfinite().all()
    assert logits.grad.isfinite().all()


def test_an_image_of_which_nothing_is_known_has_no_gradient() -> None:
    log_depth, logits = (tensor.requires_grad_() for tensor in random_output()[1:])
    training_loss(output(log_depth, logits), BAD_TRUTHS["nothing known"](), THRESHOLDS, ALL)[0].backward()
    assert log_depth.grad is not None
    assert logits.grad is not None
    assert not log_depth.grad.any()
    assert not logits.grad.any()


def test_sky_and_what_is_beyond_100_m_teach_the_range_mask_and_not_the_depth() -> None:
    truth = Truth(everywhere(3.0), everywhere() > 0)
    truth.depth[:, :4], truth.depth[:, 4:6] = torch.inf, 120.0
    log_depth, logits = (tensor.requires_grad_() for tensor in random_output()[1:])
    training_loss(output(log_depth, logits), truth, THRESHOLDS, ALL)[0].backward()
    assert log_depth.grad is not None
    assert logits.grad is not None
    assert not log_depth.grad[:, :6].any()
    assert (log_depth.grad[:, 6:] != 0).any()
    assert (logits.grad[:, :, :6] > 0).all(), "descent lowers the probability of being in range"
    assert (logits.grad[:, :, 6:] < 0).all()


def test_an_image_whose_range_is_not_certain_teaches_depth_and_no_range_mask_and_changes_nothing_for_the_others() -> (
    None
):
    gradients = {}
    for certain in (None, torch.tensor([True, False])):
        log_depth, logits = (tensor.requires_grad_() for tensor in random_output()[1:])
        truth = replace(random_truth(), range_known=certain)
        training_loss(output(log_depth, logits), truth, THRESHOLDS, ALL)[0].backward()
        gradients[certain is None] = log_depth.grad, logits.grad
    (depth_all, logits_all), (depth_some, logits_some) = gradients[True], gradients[False]
    assert depth_all is not None
    assert logits_all is not None
    assert depth_some is not None
    assert logits_some is not None
    assert torch.equal(depth_some, depth_all)
    assert torch.equal(logits_some[0], logits_all[0])
    assert logits_all[1].any()
    assert not logits_some[1].any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_moves_only_what_the_label_it_needs_speaks_of(name: str) -> None:
    log_depth, logits = (tensor.requires_grad_() for tensor in random_output()[1:])
    weights = replace(NONE, fidelity_size=12, **{name: 1.0})  # type: ignore[arg-type]
    training_loss(output(log_depth, logits), random_truth(), THRESHOLDS, weights)[0].backward()
    moved = {label for label, part in (("depth", log_depth), ("range", logits)) if part.grad is not None}
    assert moved == {LOSSES[name].needs}


def test_without_the_distortion_map_a_row_at_the_pole_counts_as_any_other() -> None:
    truth = Truth(everywhere(), everywhere() > 0)
    prediction = everywhere(0.0)
    prediction[:, 0] = 1.0
    weights = replace(NONE, log_l1=1.0, distortion_map=False)
    total, _ = training_loss(output(prediction, torch.zeros(B, 4, H, W)), truth, THRESHOLDS, weights)
    assert total.item() == pytest.approx(1 / H)


def test_losses_are_float32_under_autocast() -> None:
    plain = training_loss(random_output(), random_truth(), THRESHOLDS, ALL)[0]
    with torch.autocast("cpu", torch.bfloat16):
        inside = training_loss(random_output(), random_truth(), THRESHOLDS, ALL)[0]
    assert torch.equal(inside, plain)


def test_no_loss_at_all_is_refused() -> None:
    with pytest.raises(TrainingError, match="silog"):
        training_loss(random_output(), random_truth(), THRESHOLDS, NONE)


def test_each_loss_has_its_factor_among_the_weights() -> None:
    assert set(LOSSES) <= {field.name for field in fields(LossWeights)}


def test_the_bundled_model_is_trained_without_the_losses_that_came_later() -> None:
    standing = {"silog": 1.0, "log_l1": 0.5, "gradient": 0.5, "range_cross_entropy": 0.5, "range_dice": 0.25}
    assert {name: getattr(LOSS_PRESETS["dap-s"], name) for name in LOSSES} == dict.fromkeys(LOSSES, 0.0) | standing


@pytest.mark.parametrize(
    ("preset", "mask"),
    [
        ("paper", {"range_cross_entropy": 2.0, "range_dice": 2.0}),
        ("paper-formula", {"range_squared": 2.0, "range_dice": 1.0}),
    ],
)
def test_the_paper_has_these_factors(preset: str, mask: dict[str, float]) -> None:
    """arXiv 2512.16913: 1.0 SILog, 0.4 DF, 5.0 grad, 2.0 normal, 2.0 pts, 2.0 mask."""
    paper = {"silog": 1.0, "dense_fidelity": 0.4, "sobel": 5.0, "normal": 2.0, "points": 2.0} | mask
    assert {name: getattr(LOSS_PRESETS[preset], name) for name in LOSSES} == dict.fromkeys(LOSSES, 0.0) | paper


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("scale_invariance", 1.1),
        ("gradient_scales", 0),
        ("fidelity_fov_deg", 180.0),
        ("fidelity_size", 0),
        ("normal_latitude_deg", 0.0),
        ("range_balance", -0.1),
    ],
)
def test_a_setting_that_no_loss_can_have_is_refused_by_name(setting: str, value: float) -> None:
    with pytest.raises(TrainingError, match=f"{setting}.*{value}"):
        replace(LossWeights(), **{setting: value})  # type: ignore[arg-type]


def test_in_range_is_nearer_than_the_threshold() -> None:
    truth = Truth(torch.tensor([[[9.9, 10.0, 60.0, torch.inf]]]), torch.ones(1, 1, 4, dtype=torch.bool))
    assert truth.in_range(THRESHOLDS)[0, :, 0].tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
