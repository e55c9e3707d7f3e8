"""Packed panoramas, a model, a discriminator and labels as small as they can be."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from dap.model.checkpoints import save_network
from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork
from training.config import DiscriminatorConfig
from training.curation.verdicts import SUMMARY, Verdict, encode, fingerprint_of
from training.datasets.images import Images
from training.datasets.packing import PackOptions, pack
from training.datasets.shards import ShardReader
from training.discriminator import Discriminator, save_discriminator
from training.labelling import Labeler, label
from training.scoring import score_labels
from training.shard_pipeline import in_this_process

ALONE = in_this_process("cpu", 1)


def packed(folder: Path, count: int = 6, shard_size: int = 2, block: int = 4) -> ShardReader:
    """Panoramas of 8x16 random blocks of 4x4 pixels, or as many as are asked for, in shards."""
    pictures, shards = folder / "pictures", folder / "shards"
    pictures.mkdir(parents=True)
    for number in range(count):
        blocks = np.random.default_rng(number).integers(0, 256, (8, 16, 3), dtype=np.uint8)
        Image.fromarray(blocks.repeat(block, axis=0).repeat(block, axis=1)).save(pictures / f"p{number}.png")
    pack(Images(pictures), "all", shards, PackOptions(shard_size=shard_size, image="png"))
    return ShardReader(shards)


def model(folder: Path) -> Path:
    """A network of random weights that sees 32x64."""
    torch.manual_seed(0)
    path = folder / "tiny.safetensors"
    save_network(DapNetwork(NetworkConfig(encoder="hybrid-xs")), path, {"dap.input_size": "[32, 64]"})
    return path


def discriminator(folder: Path, seed: int = 0, picture: Literal["none", "grey"] = "grey") -> Path:
    """A discriminator of random weights that sees 32x64."""
    path = folder / f"discriminator-{picture}-{seed}.safetensors"
    config = DiscriminatorConfig(height=32, picture=picture, channels=(8, 16, 32, 64), seed=seed)
    save_discriminator(Discriminator(config), path)
    return path


def verdicts(shards: ShardReader, folder: Path, left_out: frozenset[str] = frozenset()) -> Path:
    """Verdicts as curation leaves them: the first three are indoors, the others outdoors, some are left out."""
    folder.mkdir()
    lines = []
    for index, shard in enumerate(shards.manifest.shards):
        ids = [member.id for member in shards.members(index)]
        of_shard = [
            Verdict(one, "leaning" if one in left_out else None, "indoor" if one < "p3" else "outdoor") for one in ids
        ]
        lines.append((shard.name, encode(of_shard)))
        (folder / shard.name).with_suffix(".jsonl").write_bytes(lines[-1][1])
    (folder / SUMMARY).write_text(json.dumps({"fingerprint": fingerprint_of(lines)}))
    return folder


def made_labels(
    folder: Path, block: int = 4, left_out: frozenset[str] = frozenset(), picture: Literal["none", "grey"] = "grey"
) -> tuple[ShardReader, Path]:
    """Labels of six panoramas, three of them indoors, but for some, and the file of their scores."""
    shards = packed(folder, block=block)
    curation = verdicts(shards, folder / "curation", left_out)
    labels, _ = label(shards.folder, folder / "labels", Labeler.of(model(folder)), ALONE, curation)
    scores, _ = score_labels(labels, shards.folder, discriminator(folder, picture=picture), ALONE)
    return labels, scores
