import json
from dataclasses import replace

import pytest

from dap.errors import TrainingError
from training.config import PRESETS, OptimizerConfig, PerturbationConfig, Phase, StreamConfig, TrainingConfig

TWO_PHASES = TrainingConfig(
    phases=(Phase(height=32, steps=60, batch=4), Phase(height=64, steps=40, batch=2, lr_scale=0.5)),
    optimizer=OptimizerConfig(learning_rate=0.1, warmup_steps=10, cooldown_steps=20),
)


@pytest.mark.parametrize("name", PRESETS)
def test_a_configuration_is_the_same_after_a_trip_through_json(name: str) -> None:
    assert TrainingConfig.from_json(PRESETS[name].to_json()) == PRESETS[name]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"sed": 1}', "sed"),
        ('{"loss": {"silog": "much"}}', "loss.silog"),
        ('{"precision": "float8"}', "precision"),
        ('{"network": {"encoder": "resnet"}}', "network.encoder"),
        ("{", "JSON"),
    ],
)
def test_a_configuration_that_is_none_is_refused_by_the_name_of_the_field(text: str, complaint: str) -> None:
    with pytest.raises(TrainingError, match=complaint):
        TrainingConfig.from_json(text)


@pytest.mark.parametrize("phase", [Phase(40, 1, 1), Phase(0, 1, 1), Phase(32, 0, 1), Phase(32, 1, 0)])
def test_a_phase_has_a_height_the_network_takes_and_something_to_do(phase: Phase) -> None:
    with pytest.raises(TrainingError, match=f"height={phase.height}"):
        TrainingConfig(phases=(phase,))


@pytest.mark.parametrize(
    "wrong", [{"mixed": 1.5}, {"labelled": -0.1}, {"narrowest": 0.0}, {"narrowest": 0.6}, {"widest": 1.0}]
)
def test_a_perturbation_that_is_none_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match="are shares between 0 and 1"):
        PerturbationConfig(**wrong)  # type: ignore[arg-type]


def test_a_run_without_phases_is_refused() -> None:
    with pytest.raises(TrainingError, match="at least one phase"):
        TrainingConfig(phases=())


@pytest.mark.parametrize(("window", "passes"), [(5, 2), (2, 4), (2, 0)])
def test_the_window_is_a_multiple_of_the_passes(window: int, passes: int) -> None:
    with pytest.raises(TrainingError, match="window"):
        TrainingConfig(stream=StreamConfig(window=window, passes=passes))


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.01),
        (4, 0.05),
        (9, 0.1),
        (30, 0.1),
        (59, 0.1),
        (60, 0.05),
        (80, 0.05),
        (90, 0.025),
        (99, 0.0025),
    ],
)
def test_the_learning_rate_rises_stays_and_falls_to_zero_and_each_phase_scales_it(step: int, rate: float) -> None:
    assert TWO_PHASES.learning_rate_at(step) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("precision", "cpu", "gpu"), [("auto", False, True), ("bf16", True, True), ("float32", False, False)]
)
def test_precision_is_bf16_on_a_gpu_and_float32_on_a_cpu_unless_asked_for(precision: str, cpu: bool, gpu: bool) -> None:
    config = replace(TWO_PHASES, precision=precision)
    assert (config.uses_bf16("cpu"), config.uses_bf16("cuda")) == (cpu, gpu)


def test_the_running_mean_forgets_the_sizes_of_earlier_phases() -> None:
    config = replace(TWO_PHASES, optimizer=replace(TWO_PHASES.optimizer, ema=0.8))
    assert [config.average_decay_at(step) for step in (0, 30, 59)] == pytest.approx([0.1, 31 / 40, 0.8])
    assert [config.average_decay_at(step) for step in (60, 69, 99)] == pytest.approx([0.1, 10 / 19, 0.8])


def test_a_phase_knows_how_many_samples_of_its_size_came_before() -> None:
    first, second = TWO_PHASES.phases
    config = replace(TWO_PHASES, phases=(first, second, first))
    assert config.phase_at(0) == (0, first)
    assert config.phase_at(59) == (236, first)
    assert config.phase_at(60) == (0, second)
    assert config.phase_at(101) == (244, first), "the third phase goes on where the first one stopped"


def test_finishing_cools_down_from_the_step_on_in_its_phase() -> None:
    finishing = TWO_PHASES.finishing(30)
    assert finishing.steps == 50
    assert finishing.phases == (Phase(height=32, steps=50, batch=4),)
    assert finishing.learning_rate_at(29) == pytest.approx(0.1)
    assert finishing.learning_rate_at(30) == pytest.approx(0.1)
    assert finishing.learning_rate_at(40) == pytest.approx(0.05)


def test_finishing_in_a_later_phase_keeps_the_earlier_ones() -> None:
    assert TWO_PHASES.finishing(70).phases == (TWO_PHASES.phases[0], Phase(64, 30, 2, 0.5))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"initial": "dinov3"}, "start from a file of weights"),
        ({"weights": "model.safetensors"}, "start from a file of weights"),
        ({"accumulate": 5}, "a batch of 4 cannot be accumulated in 5 parts"),
        ({"accumulate": 0}, "accumulated in 0 parts"),
        ({"sharded": True, "channels_last": True}, "cannot be channels_last"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(TrainingError, match=complaint):
        replace(TWO_PHASES, **settings)  # type: ignore[arg-type]


def test_a_configuration_of_an_older_run_has_the_defaults_of_what_came_later() -> None:
    values = json.loads(TWO_PHASES.to_json())
    for later in ("weights", "accumulate", "checkpoint_activations", "sharded"):
        del values[later]
    del values["optimizer"]["groups"], values["optimizer"]["frozen"]
    assert TrainingConfig.from_json(json.dumps(values)) == TWO_PHASES
