"""What a training depends on, in its folder and with every checkpoint: each says by itself where it is from."""

import json
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import torch

from dap.checksums import sha256_of
from training.datasets.shards import write_atomically

CONFIG_FILE = "config.json"
DATA_FILE = "data.json"
ENVIRONMENT_FILE = "environment.json"
RECORDS = (CONFIG_FILE, DATA_FILE, ENVIRONMENT_FILE)


def record_run(
    folder: Path,
    config: str,
    data: Mapping[str, object],
    device: torch.device,
    processes: int = 1,
    weights: Path | None = None,
) -> None:
    """Write the records of a run into its folder: configuration, data, git revision and environment.

    Args:
        folder: of the run; made if it is not there.
        config: JSON of it.
        data: what it learns from, by fingerprints.
        device: that trains.
        processes: that share the training.
        weights: file that it starts from. It may be gone when the run is resumed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    on_gpu = device.type == "cuda"
    environment = {
        "revision": git_revision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "processes": processes,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
        "cuda": torch.version.cuda if on_gpu else None,
        "weights_sha256": sha256_of(weights) if weights is not None and weights.is_file() else None,
    }
    texts = (config, json.dumps(data, indent=2), json.dumps(environment, indent=2))
    for name, text in zip(RECORDS, texts, strict=True):
        write_atomically(folder / name, text.encode())


def git_revision() -> str | None:
    """The commit of this code, `-dirty` with changes on top of it; None where there is no git or no checkout."""
    git = shutil.which("git")
    if git is None:
        return None
    describe = [git, "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    said = subprocess.run(describe, capture_output=True, text=True, check=False)  # noqa: S603 - no input of others
    return said.stdout.strip() or None
