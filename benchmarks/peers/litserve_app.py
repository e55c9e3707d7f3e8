"""The same answers from LitServe: POST /predict, a form with the file `image` and the field `format`."""

from typing import Any

import click
import litserve  # type: ignore[import-not-found]
import numpy as np
from fastapi import Request
from starlette.responses import Response

from benchmarks.peers.work import Work


class DepthAPI(litserve.LitAPI):  # type: ignore[misc]
    """One panorama at a time, in as many processes as there are workers."""

    threads = 1

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe passes it
        self._work = Work(self.threads)

    def decode_request(self, request: Request) -> Any:
        pixels, size = self._work.decode(request["image"].file.read())
        return pixels, size, request["format"]

    def predict(self, decoded: Any) -> Any:
        pixels, size, answer_format = decoded
        inference = self._work.infer(pixels[None])
        return inference.depth[0], inference.in_range[0], size, answer_format

    def encode_response(self, output: Any) -> Response:
        return Response(self._work.encode(*output))


class BatchedDepthAPI(DepthAPI):
    """Panoramas that wait run together, on all the cores that the worker has."""

    threads = 2

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack([pixels for pixels, *_ in inputs]), [rest for _, *rest in inputs]

    def predict(self, decoded: Any) -> Any:
        panoramas, rests = decoded
        return self._work.infer(panoramas), rests

    def unbatch(self, output: Any) -> list[Any]:
        inference, rests = output
        return [
            (depth, in_range, *rest)
            for depth, in_range, rest in zip(inference.depth, inference.in_range, rests, strict=True)
        ]


@click.command()
@click.option("--port", type=int, required=True)
@click.option("--workers", type=int, required=True)
@click.option("--batch", type=int, required=True)
def main(port: int, workers: int, batch: int) -> None:
    """Serve until a signal comes."""
    api = DepthAPI() if batch == 1 else BatchedDepthAPI(max_batch_size=batch, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers)
    server.run(host="127.0.0.1", port=port, num_api_servers=1, generate_client_file=False)


if __name__ == "__main__":
    main()
