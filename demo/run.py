"""The main job, end to end: start the service, send it a panorama, keep and check what comes back.

    python -m demo.run --output out

Leaves `depth.png`, `preview.jpg`, `cloud.ply` and `metrics.json`, and ends with a status other than 0 if any answer is
not what it should be. `sample.jpg` is a scene that nothing was trained on, version 6 of the renderer:

    dap render --kind indoor --seed 900516 --count 1 --size 1024x512
"""

import io
import json
import statistics
import time
from pathlib import Path
from typing import Any

import click
import httpx
import numpy as np
from PIL import Image

from demo.process import running_service

SAMPLE = Path(__file__).parent / "sample.jpg"
TIMED_REQUESTS = 5


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out"),
    show_default=True,
    help="Folder for the answers.",
)
@click.option("--panorama", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=SAMPLE)
def main(output: Path, panorama: Path) -> None:
    """Send PANORAMA to a service of our own and leave what comes back in OUTPUT."""
    output.mkdir(parents=True, exist_ok=True)
    with running_service() as service, httpx.Client(base_url=service.url, timeout=60.0) as client:
        click.echo(f"service ready after {service.ready_s:.2f} s on {service.url}")
        image = panorama.read_bytes()
        depth, png = _depth_png(client, image)
        preview = _post(client, "/depth", image, "image/jpeg")
        described = json.loads(_post(client, "/depth", image, "application/json"))
        cloud = _post(client, "/pointcloud", image, "application/x-ply")
        seconds = _latencies(client, image)

    points = _vertices(cloud)
    _check(Image.open(io.BytesIO(preview)).size == depth.shape[::-1], "the preview has another size than the depth")
    _check(abs(depth.max() - described["max"]) <= 1 / 512, "the PNG and the statistics disagree on the farthest point")

    metrics = {
        "ready_s": round(service.ready_s, 3),
        "latency_s": {"median": round(statistics.median(seconds), 3), "requests": len(seconds)},
        "points": points,
        "depth": described,
    }
    for name, content in (("depth.png", png), ("preview.jpg", preview), ("cloud.ply", cloud)):
        (output / name).write_bytes(content)
    (output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    _report(output, panorama, metrics)


def _post(client: httpx.Client, path: str, image: bytes, accept: str) -> bytes:
    answer = client.post(path, content=image, headers={"Content-Type": "image/jpeg", "Accept": accept})
    _check(answer.is_success, f"POST {path} for {accept} was answered {answer.status_code}: {answer.text[:500]}")
    kind = answer.headers["Content-Type"].partition(";")[0]
    _check(kind == accept, f"POST {path} for {accept} was answered with {kind}")
    return answer.content


def _depth_png(client: httpx.Client, image: bytes) -> tuple[Any, bytes]:
    """Metres, float64 (H, W), 0 where not valid, and the PNG they came in."""
    png = _post(client, "/depth", image, "image/png")
    decoded = Image.open(io.BytesIO(png))
    _check(decoded.mode == "I;16", f"the depth PNG has mode {decoded.mode}, expected 16 bits")
    depth = np.asarray(decoded) / 512
    _check(decoded.size == Image.open(io.BytesIO(image)).size, "the depth has another size than the panorama")
    _check(bool((depth > 0).any()), "not one pixel of the depth is valid")
    return depth, png


def _latencies(client: httpx.Client, image: bytes) -> list[float]:
    """Seconds of each of some depth requests, one after the other."""
    seconds = []
    for _ in range(TIMED_REQUESTS):
        started = time.perf_counter()
        _post(client, "/depth", image, "image/png")
        seconds.append(time.perf_counter() - started)
    return seconds


def _vertices(ply: bytes) -> int:
    """The number of vertices that the header promises and the body holds: three float32 and three uint8 each."""
    header, _, body = ply.partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    _check(lines[:2] == ["ply", "format binary_little_endian 1.0"], "the cloud is no binary little-endian PLY")
    (count,) = (int(line.split()[2]) for line in lines if line.startswith("element vertex"))
    _check(count > 0 and len(body) == count * 15, f"the cloud promises {count} points in {len(body)} bytes")
    return count


def _check(holds: bool, complaint: str) -> None:
    if not holds:
        raise click.ClickException(complaint)


def _report(out: Path, panorama: Path, metrics: dict[str, Any]) -> None:
    depth, latency = metrics["depth"], metrics["latency_s"]
    click.echo(f"sent {panorama.name}: {latency['median']:.3f} s, the median of {latency['requests']} requests")
    click.echo(
        f"depth: {depth['valid_share']:.0%} of the sphere valid, {depth['min']:.2f} to {depth['max']:.2f} m, "
        f"median {depth['median']:.2f} m"
    )
    click.echo(f"cloud: {metrics['points']} points")
    click.echo("\n".join(str(out / name) for name in ("depth.png", "preview.jpg", "cloud.ply", "metrics.json")))


if __name__ == "__main__":
    main()
