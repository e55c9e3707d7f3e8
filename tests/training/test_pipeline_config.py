import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from dap.errors import TrainingError
from dap.model.dap import DapNetwork
from training.pipeline_config import PIPELINES, PipelineConfig, ShardData


@pytest.mark.parametrize("name", PIPELINES)
def test_a_configuration_comes_back_from_its_json(name: str) -> None:
    assert PipelineConfig.from_json(PIPELINES[name].to_json()) == PIPELINES[name]


def test_a_field_nobody_knows_is_an_error() -> None:
    text = PIPELINES["smoke"].to_json().replace('"held_out"', '"kept_back"')
    with pytest.raises(TrainingError, match="kept_back"):
        PipelineConfig.from_json(text)


def test_the_paper_preset_has_the_numbers_that_are_published() -> None:
    paper = PIPELINES["paper"]
    assert (paper.selected.indoor, paper.selected.outdoor) == (300_000, 300_000)
    for stage in (paper.stage_1, paper.stage_2, paper.stage_3):
        rates = {group.pattern: stage.optimizer.learning_rate * group.lr_scale for group in stage.optimizer.groups}
        assert rates[r"encoder\."] == pytest.approx(5e-6)
        assert max(rates.values()) == pytest.approx(5e-5)
        assert {phase.height for phase in stage.phases} == {512}
        assert (stage.network.encoder, stage.initial) == ("vit-l", "dinov3")
        loss = stage.loss
        assert (loss.silog, loss.dense_fidelity, loss.sobel, loss.normal, loss.points) == (1.0, 0.4, 5.0, 2.0, 2.0)
    assert sum(data.weight for data in paper.unlabelled) == 1_900_000


def test_all_discriminators_but_that_of_the_bundled_weights_are_of_the_kind_that_selects_better_labels() -> None:
    kinds = {name: (preset.discriminator.picture, preset.discriminator.target) for name, preset in PIPELINES.items()}
    assert kinds == dict.fromkeys(PIPELINES, ("grey", "graded")) | {"dap-s": ("grey", "zero")}


@pytest.mark.parametrize("name", PIPELINES)
def test_every_parameter_has_a_group_where_there_are_groups(name: str) -> None:
    preset = PIPELINES[name]
    with torch.device("meta"):
        parameters = [parameter for parameter, _ in DapNetwork(preset.stage_1.network).named_parameters()]
    for stage in (preset.stage_1, preset.stage_2, preset.stage_3):
        assert stage.network == preset.stage_1.network, "stage 2 can start from stage 1"
        if stage.optimizer.groups:
            patterns = [group.pattern for group in stage.optimizer.groups]
            found = [next(p for p in patterns if re.match(p, parameter)) for parameter in parameters]
            assert set(found) == set(patterns)


def test_another_seed_changes_all_that_is_drawn_and_no_data() -> None:
    smoke = PIPELINES["smoke"]
    seeded = smoke.with_seed(7)
    drawn = (seeded.stage_1, seeded.stage_2, seeded.stage_3, seeded.discriminator)
    assert [part.seed for part in drawn] == [7] * 4
    assert (seeded.labelled, seeded.unlabelled, seeded.tests) == (smoke.labelled, smoke.unlabelled, smoke.tests)


def test_data_sets_share_neither_names_nor_scenes() -> None:
    smoke = PIPELINES["smoke"]
    with pytest.raises(TrainingError, match="each of its own name"):
        replace(smoke, tests=(ShardData("smoke-labelled"),))
    scenes = smoke.labelled[0].scenes
    assert scenes is not None
    overlapping = ShardData("other", scenes=replace(scenes, first_seed=scenes.first_seed + scenes.count - 1))
    with pytest.raises(TrainingError, match="smoke-labelled and other share seeds"):
        replace(smoke, tests=(overlapping,))


@pytest.mark.parametrize("share", ["held_out", "pseudo_share_2", "pseudo_share_3"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_shares_lie_between_nothing_and_all(share: str, value: float) -> None:
    changed: dict[str, Any] = {share: value}
    with pytest.raises(TrainingError, match="between 0 and 1"):
        replace(PIPELINES["smoke"], **changed)
