"""What an operator can set. Each field is an environment variable `DAP_<NAME>` and a flag of `dap serve`.

Every description says what happens when the value is too low and when it is too high.
"""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from dap.engines import EngineName, Execution, Precision, Provider
from dap.errors import InvalidParameter
from dap.models import DEFAULT_MODEL
from dap.resolutions import Size, parse_resolution

MEBIBYTE = 1024 * 1024
LEAST_QUEUED_PIXELS = 32 * 512 * 256
LEAST_REQUESTS = 64

_ORIGIN = re.compile(r"\*|https?://[^/\s]+")


class Settings(BaseSettings):
    """Settings of the service, from the environment unless given.

    How much is let in follows what is served where nobody says otherwise, told in full batches:

    - `max_queued_pixels` has room for lanes + 2, of the resolution whose full batch has the most pixels. What runs is
      no more in the queue: each lane finds its next batch whole when it is free, while two more come in. (A
      panorama has its room in the queue from before it is decoded.)
    - `max_requests` is 3 x lanes + 2 of them: those, one that each lane runs, and one of each that is written and sent.

    Lanes are the batches that run at a time (`dap.engines.base.Engine`). Where batches are small a burst still finds
    room for 32 panoramas of 512x256, and 64 requests. More room keeps nobody waiting in vain: who would hardly be done
    in time is refused in any case (`service.batcher.Batcher.require_room`).

    A value that is given is kept, even one that has no room for one full batch. The log then warns that batches never
    fill. It is no error: a short queue may be meant, the answers are the same, only fewer, and what a full batch is
    depends on the model, which may be exchanged while the service runs. An update shall not take down what works.
    """

    model_config = SettingsConfigDict(env_prefix="DAP_", frozen=True, extra="forbid")

    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on. The default is reachable from this machine alone; 0.0.0.0 opens the service "
        "to every network that this machine is on.",
    )
    port: int = Field(
        default=8000,
        ge=0,
        le=65535,
        description="Port to listen on; 0 takes a free one and prints it. Below 1024 needs privileges.",
    )
    probe_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port of its own for /healthz, /readyz and /metrics, which need no key there and are its only "
        "paths; /metrics is then nowhere else. By default they are on the port of everything else.",
    )
    api_keys: SecretStr | None = Field(
        default=None,
        description="Keys, separated by commas, one of which a client must send (`Authorization: Bearer KEY`) for all "
        "but pages and probes. By default none is needed.",
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="File with the keys that DAP_API_KEYS would hold, one a line, one of which a client must send for "
        "all but pages and probes. Read at the start; empty lines and # lines are not keys. By default none is needed.",
    )
    admin_key: SecretStr | None = Field(
        default=None,
        description="Key for loading another model, which is refused to everybody by default. It opens all else, too.",
    )
    admin_key_file: Path | None = Field(
        default=None,
        description="File with the key that DAP_ADMIN_KEY would hold, for loading another model; read at the start.",
    )
    cors_origins: str | None = Field(
        default=None,
        description="Origins, separated by commas, whose pages may read answers in a browser (`https://example.org`), "
        "or * for every page. By default none but the service's own.",
    )
    model: str = Field(
        default=DEFAULT_MODEL,
        description="Model to serve: a name that `dap models` lists, or the path of a model's file.",
    )
    resolutions: str | None = Field(
        default=None,
        description="Sizes at which clients may have the model see panoramas (`resolution=`), WxH separated by commas, "
        "the first for who does not ask; by default all that the model is made for. Each is warmed at the start and "
        "needs memory of its own. A checkpoint takes any multiples of 16, an exported model those it has files for.",
    )
    engine: EngineName = Field(
        default="auto", description="What runs the model; auto takes the engine that the model's file is for."
    )
    device: str = Field(
        default="auto",
        description="Where the engine runs: cpu, cuda, cuda:N, or auto for a GPU where the engine's library is built "
        "for one. A GPU that does not start ends the start, unless the CPU may stand in: cuda,cpu.",
    )
    precision: Precision = Field(
        default="fp32",
        description="Numbers that the torch engine computes with, but for what needs fp32; exported files bring their "
        "own. Less than fp32 is faster on a GPU, and less exact.",
    )
    execution: Execution = Field(
        default="auto",
        description="How the torch engine runs on a GPU: eager launches kernel by kernel, graphs (auto) launches each "
        "batch at once, compiled does so with kernels that torch.compile has fused: the start then takes minutes for "
        "each number of panoramas in a batch, and needs Triton and a C compiler.",
    )
    provider: Provider = Field(
        default="auto",
        description="How the onnx engine runs on a GPU: by CUDA (auto), or by TensorRT, and by CUDA what TensorRT does "
        "not take. The first start with tensorrt then takes minutes for each resolution, to build plans.",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="Cores that work on one batch on the CPU; by default all that this process may use. Fewer leave "
        "cores idle, more slow every request down.",
    )
    max_batch_size: int = Field(
        default=4,
        ge=1,
        le=256,
        description="Panoramas that run together at most; of a larger resolution than the first of resolutions as many "
        "fewer as it has more pixels. Too low: a GPU is idle between small batches. Too high: the device runs out of "
        "memory (batches are then split), and everybody waits for the slowest batch. On a CPU of up to 4 cores there "
        "are no batches, unless batch_delay_s asks for them: each core runs a panorama of its own.",
    )
    gpu_arena_gb: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description="Gigabytes of a GPU's memory that each session of the onnx engine grows to at most; it has one "
        "with range masks and one without, for each input size. By default there is no limit, which is right for a GPU "
        "of its own. Too low: it does not start, or batches are split for want of room. Too high: others on the same "
        "GPU have none.",
    )
    batch_delay_s: float = Field(
        default=0.0,
        ge=0,
        le=3600,
        description="Seconds that a panorama waits for company on an idle engine. 0 is right for nearly everybody: "
        "batches form by themselves while the engine is busy. Too high: every request of a quiet service waits.",
    )
    max_queued_pixels: int | None = Field(
        default=None,
        ge=1,
        description="Pixels that wait for the engine at most, each panorama at the size that the model sees it at; "
        "beyond it 429. By default as many as keep batches full: two full batches and one more for each that runs at a "
        f"time, and {LEAST_QUEUED_PIXELS} at least. Too low: bursts are refused that could have been served, and "
        "batches never fill. Too high: who waits longest runs out of time, and memory, 3 bytes a pixel.",
    )
    max_requests: int | None = Field(
        default=None,
        ge=1,
        description="POST requests in progress at most, from the first byte in to the last byte out; beyond it 429. By "
        "default as many as keep batches full: two full batches and three more for each that runs at a time, and "
        f"{LEAST_REQUESTS} at least. Too low: slow clients keep quick ones out, and batches never fill. Too high: "
        "memory, since each may hold an upload or an answer.",
    )
    max_body_bytes: int = Field(
        default=64 * MEBIBYTE,
        ge=4096,
        description="Bytes of one request's body at most, counted as they arrive; beyond it 413. Too low: large "
        "panoramas are refused. Too high: one client can fill the memory.",
    )
    max_bytes_in_progress: int = Field(
        default=256 * MEBIBYTE,
        ge=1,
        description="Bytes of all bodies in progress together at most; beyond it 429. Too low: large uploads shut each "
        "other out. Too high: many clients together can fill the memory.",
    )
    max_image_pixels: int = Field(
        default=16384 * 8192,
        ge=64 * 32,
        description="Pixels of a posted picture at most, told from its header; beyond it 413. Too low: large panoramas "
        "are refused. Too high: a small file can unpack to more than the memory (3 bytes a pixel and more).",
    )
    max_output_pixels: int = Field(
        default=8192 * 4096,
        ge=64 * 32,
        description="Pixels of an answer at most, those of its depth map for each format of several, and of its views; "
        "beyond it 413. All answers that are encoded at a time have no more together. Too low: size=input is refused "
        "for large panoramas. Too high: answers may take gigabytes (about 20 bytes a pixel while they are made, 100 "
        "as npz).",
    )
    max_cloud_points: int = Field(
        default=4_000_000,
        ge=1,
        description="Points of a cloud at most. Too low: clouds are coarser than the photograph. Too high: an answer "
        "may take gigabytes (about 60 bytes a point while it is made).",
    )
    max_answer_bytes_in_progress: int = Field(
        default=1024 * MEBIBYTE,
        ge=1,
        description="Bytes of all answers together at most that are made and not yet sent; beyond it 429. An answer "
        "larger than all of it is sent alone. Too low: slow readers shut others out. Too high: they can fill the "
        "memory.",
    )
    decode_threads: int = Field(
        default=2,
        ge=1,
        description="Images decoded at a time at most. Too low: the engine waits for pixels. Too high: decoding takes "
        "the cores from the engine, and more memory.",
    )
    encode_threads: int = Field(
        default=2,
        ge=1,
        description="Answers encoded at a time at most. Too low: finished depth waits to be written. Too high: it "
        "takes the cores from the engine, and more memory.",
    )
    request_timeout_s: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="Seconds that a request may take from its first byte to the last byte encoded; beyond it 504 and "
        "its work is dropped. A client may ask for less with X-Request-Timeout. Too low: slow uploads and long queues "
        "fail. Too high: work is done for clients that have given up.",
    )
    upload_stall_s: float = Field(
        default=10.0,
        gt=0,
        le=3600,
        description="Seconds that the next bytes of a body may take to come; beyond it 408. Too low: clients on bad "
        "networks fail. Too high: silent clients hold places that others need.",
    )
    upload_bytes_per_s: int = Field(
        default=16 * 1024,
        ge=1,
        description="Bytes a second that a body comes at, on the whole, once upload_stall_s is over; beyond it 408. "
        "Too low: crawling clients hold places that others need. Too high: clients on slow networks fail.",
    )
    engine_timeout_s: float = Field(
        default=120.0,
        gt=0,
        le=86400,
        description="Seconds that a batch may run; beyond it the engine counts as hung, its requests fail and the "
        "process ends with 1. Too low: slow machines never get through a large batch. Too high: a hang stays unseen.",
    )
    shutdown_grace_s: float = Field(
        default=1.0,
        ge=0,
        le=3600,
        description="Seconds after SIGTERM in which requests are still accepted while /readyz says no. Too low: load "
        "balancers send to a port that is closed already. Too high: every restart takes longer. Under Kubernetes a "
        "preStop sleep does the same.",
    )
    drain_timeout_s: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="Seconds that requests in progress get to finish after that. Too low: accepted requests are lost. "
        "Too high: a stuck client delays the restart; keep the sum of both below the orchestrator's patience.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="The least severe messages that are logged; info has one line for each request but probes.",
    )

    @field_validator("resolutions")
    @classmethod
    def _resolutions_are_resolutions(cls, resolutions: str | None) -> str | None:
        try:
            _sizes(resolutions)
        except InvalidParameter as error:
            raise ValueError(str(error)) from None
        return resolutions

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_origins(cls, origins: str | None) -> str | None:
        for origin in origins.split(",") if origins else ():
            if not _ORIGIN.fullmatch(origin.strip()):
                raise ValueError("an origin is * or scheme://host[:port], without a path")
        return origins

    @property
    def sizes(self) -> tuple[Size, ...] | None:
        """(H, W) of the resolutions to offer; None for all that the model is made for."""
        return _sizes(self.resolutions)

    def queued_pixels(self, batch_pixels: int, lanes: int) -> int:
        """Pixels that may wait where a full batch has at most `batch_pixels`, and so many of them run at a time."""
        return self.max_queued_pixels or max(LEAST_QUEUED_PIXELS, (lanes + 2) * batch_pixels)

    def requests(self, batch: int, lanes: int) -> int:
        """Requests that may be in progress where a full batch has so many panoramas, and `lanes` run at a time."""
        return self.max_requests or max(LEAST_REQUESTS, (3 * lanes + 2) * batch)

    @model_validator(mode="after")
    def _ports_are_two(self) -> Self:
        if self.probe_port and self.probe_port == self.port:
            raise ValueError("probe_port is another port than port")
        return self

    @model_validator(mode="after")
    def _one_body_fits_among_all(self) -> Self:
        if self.max_bytes_in_progress < self.max_body_bytes:
            raise ValueError("max_bytes_in_progress is at least max_body_bytes: the largest body could never come in")
        return self


def _sizes(resolutions: str | None) -> tuple[Size, ...] | None:
    return None if resolutions is None else tuple(parse_resolution(text.strip()) for text in resolutions.split(","))
