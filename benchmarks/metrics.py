"""What the service says of its batches and of its device, from /metrics."""

import re
import urllib.request
from dataclasses import dataclass

_SAMPLE = re.compile(r"^dap_batch_size_(sum|count) (\S+)$", re.MULTILINE)
_DEVICE = re.compile(r'^dap_model_info\{.*\bdevice="([^"]*)"', re.MULTILINE)


@dataclass(frozen=True)
class Batches:
    """How many times the engine ran, and how many panoramas it was given in all."""

    runs: float = 0.0
    panoramas: float = 0.0

    @property
    def mean(self) -> float:
        """Panoramas of a batch; 0 if there was none."""
        return self.panoramas / self.runs if self.runs else 0.0

    def __add__(self, other: "Batches") -> "Batches":
        return Batches(self.runs + other.runs, self.panoramas + other.panoramas)

    def __sub__(self, other: "Batches") -> "Batches":
        return Batches(self.runs - other.runs, self.panoramas - other.panoramas)


def read_batches(url: str) -> Batches:
    """Since the service at `url` started."""
    return parse_batches(_read(url))


def read_device(url: str) -> str:
    """On which the service at `url` runs its model: `cpu`, `cuda:0`."""
    return parse_device_label(_read(url))


def parse_batches(text: str) -> Batches:
    """From the text that Prometheus reads."""
    found = {name: float(value) for name, value in _SAMPLE.findall(text)}
    return Batches(found["count"], found["sum"])


def parse_device_label(text: str) -> str:
    """From the text that Prometheus reads."""
    (device,) = _DEVICE.findall(text)
    return str(device)


def _read(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text
