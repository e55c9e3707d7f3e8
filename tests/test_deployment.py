"""The container files and manifests: each valid by its schema, and all of one mind about ports, paths and users."""

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parent.parent
BASE = ROOT / "k8s" / "base"
OVERLAYS = sorted((ROOT / "k8s" / "overlays").iterdir())
# The oldest that knows the preStop sleep, and the newest whose schemas the package holds.
KUBERNETES = ["1.30", kubernetes_validate.latest_version()]


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def resources(folder: Path) -> list[Any]:
    return [read(folder / name) for name in read(folder / "kustomization.yaml")["resources"]]


def of_kind(kind: str) -> Any:
    (found,) = (resource for resource in resources(BASE) if resource["kind"] == kind)
    return found


def merged(base: Any, patch: Any) -> Any:
    """A strategic merge, as far as the overlays need one: mappings by key, lists of named things by name."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return base | {key: merged(base[key], value) if key in base else value for key, value in patch.items()}
    if isinstance(base, list) and all("name" in item for item in [*base, *patch]):
        patched = {item["name"]: item for item in base}
        return list(merged(patched, {item["name"]: item for item in patch}).values())
    return patch


DEPLOYMENT = of_kind("Deployment")
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
# Of each stage: what it is built on, and its instructions.
STAGES = {
    name: (base, text) for base, name, text in re.findall(r"(?ms)^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)", DOCKERFILE)
}
IMAGES = ["cpu", "gpu"]
COMPOSE = read(ROOT / "docker-compose.yml")


def instruction(name: str, stage: str) -> str:
    """What follows all instructions of that name of a stage and of what it is built on."""
    base, text = STAGES[stage]
    own = " ".join(re.findall(rf"^{name} +(.*)$", text, re.MULTILINE)).strip()
    return f"{instruction(name, base)} {own}".strip() if base in STAGES else own


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("resource", resources(BASE), ids=lambda resource: resource["kind"])
def test_each_resource_of_the_base_is_valid(resource: Any, version: str) -> None:
    kubernetes_validate.validate(resource, version, strict=True)


def test_the_base_lists_every_file_of_its_folder() -> None:
    assert set(read(BASE / "kustomization.yaml")["resources"]) == {p.name for p in BASE.iterdir()} - {
        "kustomization.yaml"
    }


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda overlay: overlay.name)
def test_an_overlay_patches_what_the_base_has_and_stays_valid(overlay: Path, version: str) -> None:
    kustomization = read(overlay / "kustomization.yaml")
    assert [(overlay / name).resolve() for name in kustomization["resources"]] == [BASE]
    for patch in (read(overlay / entry["path"]) for entry in kustomization["patches"]):
        target = of_kind(patch["kind"])
        assert patch["metadata"]["name"] == target["metadata"]["name"]
        result = merged(target, patch)
        kubernetes_validate.validate(result, version, strict=True)
        # A container by another name would be a second container without an image, not a patch.
        assert [container["name"] for container in result["spec"]["template"]["spec"]["containers"]] == [
            CONTAINER["name"]
        ]
    assert {image["name"] for image in kustomization["images"]} == {CONTAINER["image"]}


def test_the_gpu_overlay_asks_for_one_gpu() -> None:
    result = merged(DEPLOYMENT, read(ROOT / "k8s" / "overlays" / "gpu" / "deployment.yaml"))
    (container,) = result["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["livenessProbe"] == CONTAINER["livenessProbe"]


def test_deployment_service_and_budget_select_the_same_pods() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == labels
    assert of_kind("Service")["spec"]["selector"] == labels
    assert of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels


@pytest.mark.parametrize("image", IMAGES)
def test_every_port_is_the_port_of_the_image(image: str) -> None:
    exposed = int(instruction("EXPOSE", image))
    assert f"DAP_PORT={exposed}" in instruction("ENV", image)
    port, probes = CONTAINER["ports"]
    assert port["containerPort"] == exposed
    assert {"name": "DAP_PROBE_PORT", "value": str(probes["containerPort"])} in CONTAINER["env"]
    (service_port,) = of_kind("Service")["spec"]["ports"]
    assert service_port["targetPort"] == port["name"]
    assert {CONTAINER[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")} == {
        probes["name"]
    }
    assert COMPOSE["services"]["dap"]["ports"] == [f"{exposed}:{exposed}"]
    scraped = read(ROOT / "deploy" / "prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"]
    assert scraped == [f"dap:{exposed}"]


def test_accepted_requests_may_finish_before_the_process_is_killed() -> None:
    fields = Settings.model_fields
    going_down_s = fields["shutdown_grace_s"].default + fields["drain_timeout_s"].default
    pre_stop_s = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["terminationGracePeriodSeconds"] > pre_stop_s + going_down_s
    assert int(COMPOSE["services"]["dap"]["stop_grace_period"].removesuffix("s")) > going_down_s


@pytest.mark.parametrize("image", IMAGES)
def test_the_pod_has_the_least_privilege(image: str) -> None:
    user = int(instruction("USER", image).split(":")[0])
    assert user > 0
    assert (POD["securityContext"]["runAsNonRoot"], POD["securityContext"]["runAsUser"]) == (True, user)
    assert POD["automountServiceAccountToken"] is False
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_prometheus_waits_for_a_healthy_service_and_finds_its_configuration() -> None:
    prometheus = COMPOSE["services"]["prometheus"]
    assert prometheus["depends_on"] == {"dap": {"condition": "service_healthy"}}
    source, target, _ = prometheus["volumes"][0].split(":")
    assert (ROOT / source).is_file()
    assert f"--config.file={target}" in prometheus["command"]
    assert COMPOSE["services"]["dap"]["build"]["target"] in IMAGES


@pytest.mark.parametrize("folder", [BASE, *OVERLAYS], ids=lambda folder: folder.name)
def test_the_images_of_the_manifests_are_those_that_make_builds(folder: Path) -> None:
    (image,) = read(folder / "kustomization.yaml")["images"]
    tag = image["newTag"]
    assert tag in IMAGES
    assert f"docker build --target {tag} --tag {image['name']}:{tag} ." in (ROOT / "Makefile").read_text()


def test_the_image_that_is_built_without_a_target_is_that_for_the_cpu() -> None:
    assert [*STAGES][-1] == "cpu"


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_brings_the_environment_of_its_own_dependencies(image: str) -> None:
    (source,) = re.findall(r"--from=(\S+) /app /app", instruction("COPY", image))
    assert STAGES[source][0] == {"cpu": "dependencies", "gpu": "dependencies-gpu"}[image]
    assert "--from=wheel /wheels /wheels" in instruction("COPY", source)
    assert instruction("RUN", source).endswith("install --no-deps /wheels/*.whl")


@pytest.mark.parametrize(
    "commands",
    [instruction("RUN", "dependencies-gpu"), (ROOT / "Makefile").read_text(), (ROOT / "docs" / "gpu.md").read_text()],
    ids=["Dockerfile", "Makefile", "docs"],
)
def test_onnxruntime_goes_before_the_same_files_for_a_gpu_come(commands: str) -> None:
    """pip would install one over the other, and leave which of them it is to the order."""
    both_go, gpu_comes = "--yes onnxruntime onnxruntime-gpu", "'onnxruntime-gpu[cuda,cudnn]>=1.21'"
    assert commands.index(both_go) < commands.index(gpu_comes)


def test_the_image_is_given_every_package_and_nothing_that_the_ignore_file_hides() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel["packages"]) <= sources
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_of_the_image_passes_only_when_ready(status: int, healthy: bool, image: str) -> None:
    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    command = json.loads(instruction("HEALTHCHECK", image).partition("CMD ")[2])
    with HTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        environment = os.environ | {"DAP_PORT": str(server.server_port)}
        check = subprocess.run([sys.executable, *command[1:]], env=environment, capture_output=True)
        thread.join()
    assert (check.returncode == 0) is healthy
