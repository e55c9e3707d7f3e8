"""The service as users meet it: a process of its own, over real HTTP."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parent.parent.parent
SERVE = "from service.commands import serve; serve()"
# The same with an engine that hangs on a red of 13, and loses its device on one of 14.
SERVE_UNLUCKY = (
    """
import time
from dap.engines.onnx import OnnxEngine
from dap.errors import DeviceLost

infer = OnnxEngine.infer

def unlucky(engine, panoramas, **asked):
    if (panoramas[..., 0] == 13).all():
        time.sleep(3600)
    if (panoramas[..., 0] == 14).all():
        raise DeviceLost("the device fell off the bus")
    return infer(engine, panoramas, **asked)

OnnxEngine.infer = unlucky
"""
    + SERVE
)


@dataclass
class Service:
    process: subprocess.Popen[str]
    url: str
    probe_url: str

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=20)

    def metric(self, name: str) -> float:
        text = httpx.get(f"{self.url}/metrics").text
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return sum(sample.value for sample in samples if sample.name == name)

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def is_ready(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz").is_success
        return False


@contextmanager
def running(
    model: Path, *flags: str, ready: bool = True, program: str = SERVE, environment: Mapping[str, str] | None = None
) -> Iterator[Service]:
    command = [sys.executable, "-c", program, "--port", "0", "--model", str(model), "--threads", "1", *flags]
    variables = {**os.environ, **(environment or {})}
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables
    )
    try:
        addresses = re.findall(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert addresses, process.communicate()
        service = Service(process, addresses[0], addresses[-1])
        if ready:
            service.until(service.is_ready)
        yield service
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def service(red_model: Path) -> Iterator[Service]:
    with running(red_model) as running_service:
        yield running_service


def test_a_panorama_comes_back_over_http(service, panorama) -> None:
    with service.client() as client:
        answer = client.post("/depth?format=npy", content=panorama(red=80), headers={"content-type": "image/png"})
    assert answer.status_code == 200
    assert (np.load(io.BytesIO(answer.content)) == 40).all()
    assert answer.headers["x-model"] == "red"
    assert "server" not in answer.headers


def test_a_connection_serves_many_requests_good_and_bad(service, panorama) -> None:
    with service.client() as client:
        statuses = [client.post("/depth", content=body).status_code for body in (panorama(), b"no", b"", panorama())]
    assert statuses == [200, 415, 400, 200]


def test_a_body_beyond_the_limit_is_told_so_though_it_is_still_being_sent(red_model) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(400):
            yield bytes(65536)

    with running(red_model, "--max-body-bytes", "100000") as service, service.client() as client:
        unannounced = client.post("/depth", content=endless())
        announced = client.post("/depth", content=bytes(8_000_000))
    assert (unannounced.status_code, announced.status_code) == (413, 413)


def test_a_client_that_asks_first_need_not_send_what_would_be_refused(red_model) -> None:
    head = b"POST /depth HTTP/1.1\r\nHost: s\r\nContent-Length: 9000000\r\nExpect: 100-continue\r\n\r\n"
    with running(red_model, "--max-body-bytes", "100000") as service:
        host, port = service.url.removeprefix("http://").split(":")
        with closing(socket.create_connection((host, int(port)), timeout=10)) as connection:
            connection.sendall(head)
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_requests_that_come_together_run_in_one_batch(red_model, panorama) -> None:
    flags = ("--batch-delay-s", "2", "--max-batch-size", "4")
    with running(red_model, *flags) as service, ThreadPoolExecutor(4) as pool:
        before = service.metric("dap_batch_size_count")
        reds = (20, 40, 60, 80)
        posts = [pool.submit(httpx.post, f"{service.url}/depth?format=npy", content=panorama(red=red)) for red in reds]
        metres = [np.load(io.BytesIO(post.result().content))[0, 0] for post in posts]
        assert metres == [10, 20, 30, 40]
        assert service.metric("dap_batch_size_count") == before + 1


def test_a_client_that_hangs_up_gives_its_place_back(red_model, panorama) -> None:
    with running(red_model, "--batch-delay-s", "1") as service:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{service.url}/depth", content=panorama(), timeout=0.3)
        service.until(lambda: service.metric("dap_queue_panoramas") == 0)
        assert service.metric("dap_requests_in_progress") == 1  # this very scrape


def connection_to(service: Service) -> socket.socket:
    host, port = service.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


class TestSlowClients:
    def test_uploads_that_stall_keep_no_place_from_others(self, red_model, panorama) -> None:
        head = b"POST /depth HTTP/1.1\r\nHost: s\r\nContent-Length: 5000\r\n\r\n some bytes and then no more"
        with running(red_model, "--max-requests", "2", "--upload-stall-s", "0.5") as service:
            with closing(connection_to(service)) as one, closing(connection_to(service)) as other:
                for connection in (one, other):
                    connection.sendall(head)
                service.until(lambda: service.metric("dap_requests_in_progress") == 3)
                assert httpx.post(f"{service.url}/depth", content=panorama()).status_code == 429
                for connection in (one, other):
                    assert connection.recv(12) == b"HTTP/1.1 408"
            assert httpx.post(f"{service.url}/depth", content=panorama()).status_code == 200
            assert service.metric("dap_queue_duration_seconds_count") == 1  # neither was ever queued

    def test_a_reader_who_takes_nothing_keeps_no_batch_slot(self, red_model, panorama) -> None:
        request = b"POST /depth?format=npy&size=4096x2048 HTTP/1.1\r\nHost: s\r\nContent-Length: %d\r\n\r\n%b"
        body = panorama()
        with running(red_model, "--max-batch-size", "1") as service, closing(connection_to(service)) as connection:
            connection.sendall(request % (len(body), body))
            service.until(lambda: service.metric("dap_encode_duration_seconds_count") == 1)
            assert service.metric("dap_requests_in_progress") == 2  # 32 MiB wait for the reader
            assert httpx.post(f"{service.url}/depth", content=body).status_code == 200


def test_overload_is_refused_at_once_while_what_was_accepted_is_answered(red_model, panorama) -> None:
    flags = ("--batch-delay-s", "2", "--max-batch-size", "8", "--max-queued-pixels", str(3 * 32 * 64))
    with running(red_model, *flags) as service, ThreadPoolExecutor(3) as pool, service.client() as client:
        accepted = [pool.submit(httpx.post, f"{service.url}/depth", content=panorama()) for _ in range(3)]
        service.until(lambda: service.metric("dap_queue_panoramas") == 3)
        refused = [client.post("/depth", content=panorama()) for _ in range(10)]
        assert {answer.status_code for answer in refused} == {429}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert [answer.result().status_code for answer in accepted] == [200, 200, 200]


class TestDeadEngine:
    @pytest.mark.parametrize(("red", "cause"), [(13, "has run for more than 1 seconds"), (14, "fell off the bus")])
    def test_its_requests_fail_and_the_process_ends_with_1(self, red_model, panorama, red: int, cause: str) -> None:
        flags = ("--engine-timeout-s", "1", "--max-batch-size", "1")
        with running(red_model, *flags, program=SERVE_UNLUCKY) as service, ThreadPoolExecutor(2) as pool:
            assert httpx.post(f"{service.url}/depth", content=panorama()).status_code == 200
            posts = [pool.submit(httpx.post, f"{service.url}/depth", content=panorama(red=red)) for _ in range(2)]
            assert {post.result().status_code for post in posts} <= {500, 503}
            _, log = service.process.communicate(timeout=20)
            assert service.process.returncode == 1
        assert cause in log


def test_models_are_exchanged_under_load_and_no_request_is_lost(red_model, panorama) -> None:
    keys = {"DAP_ADMIN_KEY": "an-admin-key-of-length"}
    headers = {"Authorization": f"Bearer {keys['DAP_ADMIN_KEY']}"}
    with running(red_model, environment=keys) as service, ThreadPoolExecutor(3) as pool, service.client() as client:
        load = pool.submit(client.post, "/models/red:load", headers=headers)
        answers = []
        while not load.done() or not answers:
            answers += pool.map(lambda _: httpx.post(f"{service.url}/depth", content=panorama()), range(4))
        assert load.result().status_code == 200
        assert {answer.status_code for answer in answers} == {200}
        assert client.post("/models/dap-nowhere:load", headers=headers).status_code == 404


def test_probes_and_metrics_have_a_port_of_their_own_if_asked(red_model) -> None:
    with running(red_model, "--probe-port", "0", ready=False) as service:
        main, probes = service.url, service.probe_url
        service.until(lambda: _answers(service, "/readyz"))
        assert httpx.get(f"{probes}/metrics").is_success
        assert httpx.get(f"{probes}/models").status_code == 404
        assert httpx.get(f"{main}/metrics").status_code == 404
        assert httpx.get(f"{main}/models").is_success
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(timeout=10) == 0


class TestGoingDown:
    def test_sigterm_finishes_what_was_accepted_and_exits_with_0(self, red_model, panorama) -> None:
        flags = ("--batch-delay-s", "2", "--shutdown-grace-s", "2")
        with running(red_model, *flags) as service, ThreadPoolExecutor(2) as pool:
            accepted = pool.submit(httpx.post, f"{service.url}/depth", content=panorama())
            service.until(lambda: service.metric("dap_queue_panoramas") == 1)
            service.process.send_signal(signal.SIGTERM)
            service.until(lambda: httpx.get(f"{service.url}/readyz").status_code == 503)
            assert httpx.get(f"{service.url}/healthz").status_code == 200
            during_grace = pool.submit(httpx.post, f"{service.url}/depth", content=panorama())
            assert (accepted.result().status_code, during_grace.result().status_code) == (200, 200)
            assert service.process.wait(timeout=10) == 0

    def test_an_interrupt_at_the_terminal_waits_for_no_load_balancer(self, red_model) -> None:
        with running(red_model, "--shutdown-grace-s", "60") as service:
            service.process.send_signal(signal.SIGINT)
            assert service.process.wait(timeout=10) == 0

    def test_a_second_signal_ends_it_at_once(self, red_model, panorama) -> None:
        with running(red_model, "--shutdown-grace-s", "60") as service:
            service.process.send_signal(signal.SIGTERM)
            service.until(lambda: httpx.get(f"{service.url}/readyz").status_code == 503)
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(timeout=5) == 128 + signal.SIGTERM

    def test_before_the_model_is_loaded_it_goes_down_too(self, red_model) -> None:
        with running(red_model, "--shutdown-grace-s", "0", ready=False) as service:
            service.until(lambda: _answers(service, "/healthz"))
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(timeout=10) == 0


def test_a_model_that_cannot_be_loaded_ends_the_process_with_1_and_a_line_that_says_why(tmp_path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not an onnx file")
    with running(broken, ready=False) as service:
        _, log = service.process.communicate(timeout=20)
        assert service.process.returncode == 1
    lines = [json.loads(line) for line in log.splitlines()]
    (why,) = [line for line in lines if line["level"] == "critical"]
    assert "broken.onnx" in why["message"]


def test_the_log_is_json_with_a_line_for_each_request_under_its_id(red_model, panorama) -> None:
    with running(red_model, "--shutdown-grace-s", "0") as service:
        httpx.post(f"{service.url}/depth", content=panorama(), headers={"x-request-id": "frame-7"})
        service.process.send_signal(signal.SIGTERM)
        _, log = service.process.communicate(timeout=10)
    lines = [json.loads(line) for line in log.splitlines()]
    (request,) = [line for line in lines if line.get("request_id") == "frame-7"]
    assert (request["logger"], request["path"], request["status"]) == ("dap.access", "/depth", 200)


def _answers(service: Service, path: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(service.url + path).is_success
    return False
