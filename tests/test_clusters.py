"""What is in deploy/ is what Kubernetes and KServe take, and agrees with the code and the image."""

import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import ValidationError

from benchmarks.scale import Burst
from models.engines import BATCH_CPU, BATCH_CUDA
from service.app import create_app
from service.guards import OPEN_PATHS, largest_body
from service.observation import Metrics
from service.server import END_S
from service.settings import KEYS, Settings
from tests.oracles import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
KSERVE = ROOT / "deploy" / "kserve" / "inferenceservice.yaml"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
VERSIONS = ("1.30", kubernetes_validate.latest_version())  # the oldest that is tried, the newest
DECODING_BYTES = 15  # of a pixel, at the peak of decoding: service/settings.py, `max_pixels`
MODEL_BYTES = 0.5e9  # Inception-ResNet-v2 in onnxruntime, and the program


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a YAML file."""
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def base(name: str) -> dict[str, Any]:
    """Return a document of what CPUs and GPUs share."""
    (document,) = documents(KUBERNETES / "base" / f"{name}.yaml")
    return document


def quantity(text: str) -> float:
    """Return what Kubernetes' way to write numbers of bytes and cores says."""
    number, unit = re.fullmatch(r"([\d.]+)(m|[KMG]i)?", text).groups()  # type: ignore[union-attr]
    powers = {None: 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    return float(number) * powers[unit]


POD = base("deployment")["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
RUNTIME, INFERENCE = documents(KSERVE)
(SERVER,) = RUNTIME["spec"]["containers"]
BOTH = pytest.mark.parametrize("container", [CONTAINER, SERVER], ids=["kubernetes", "kserve"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["deployment", "service", "autoscaler", "disruption"])
def test_kubernetes_takes_each_document(name: str, version: str) -> None:
    """Its schema has every field, and no field is misspelt."""
    kubernetes_validate.validate(base(name), version, strict=True)


def test_the_schema_would_notice() -> None:
    """A field that Kubernetes does not know is an error."""
    wrong = base("service")
    wrong["spec"]["prots"] = wrong["spec"].pop("ports")
    with pytest.raises(ValidationError, match="prots"):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


@pytest.mark.parametrize(("device", "folder"), [("cpu", "."), ("gpu", "gpu")])
def test_images_are_those_that_are_built(device: str, folder: str) -> None:
    """Each form names its own; what both share names none, or the form would not find it."""
    (said,) = documents(KUBERNETES / folder / "kustomization.yaml")
    images = {one["name"]: f"{one['newName']}:{one['newTag']}" for one in said["images"]}
    assert images.pop("relume") == COMPOSE["services"][device]["image"]
    assert set(images) == {POD["spec"]["initContainers"][0]["image"]}
    (shared,) = documents(KUBERNETES / "base" / "kustomization.yaml")
    assert "images" not in shared
    there = {one.name for one in (KUBERNETES / "base").iterdir()}
    assert set(shared["resources"]) == there - {"kustomization.yaml"}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is what renders it")
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_kubectl_puts_them_together(device: str, tmp_path: Path) -> None:
    """Four documents that Kubernetes takes, with images from one's own registry."""
    folder = shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    folder = folder if device == "cpu" else folder / "gpu"
    said = (folder / "kustomization.yaml").read_text(encoding="utf-8")
    own = said.replace("newName: relume", "newName: registry/relume")
    (folder / "kustomization.yaml").write_text(own, encoding="utf-8")
    command = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {one["kind"]: one for one in yaml.safe_load_all(done.stdout)}
    kinds = ("Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget")
    assert sorted(found) == sorted(kinds)
    for one in found.values():
        kubernetes_validate.validate(one, VERSIONS[0], strict=True)
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == f"registry/{COMPOSE['services'][device]['image']}"
    assert pod["initContainers"][0]["image"] == "registry/relume-models:1"
    given = {one["name"]: one.get("value") for one in container["env"]}
    assert given.get("CLASSIFY_DEVICE") == ("cuda" if device == "gpu" else None)
    limits = container["resources"]["limits"]
    assert limits.get("nvidia.com/gpu") == ("1" if device == "gpu" else None)
    queue, busy = found["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert queue["pods"]["target"]["averageValue"] == str(Settings().queue // 2)
    assert busy["type"] == ("Pods" if device == "gpu" else "Resource")
    assert quantity(limits["memory"]) >= needed(int(limits["cpu"]))


def needed(cores: int) -> float:
    """Return the most memory that a replica can be made to take."""
    settings = Settings()
    places = settings.queue + BATCH_CUDA + cores
    bodies = places * largest_body(settings.max_upload_bytes, is_json=True)
    return MODEL_BYTES + cores * DECODING_BYTES * settings.max_pixels + bodies


@BOTH
def test_memory_suffices(container: dict[str, Any]) -> None:
    """The limit is above what the settings let in."""
    limits = container["resources"]["limits"]
    assert quantity(limits["memory"]) >= needed(math.ceil(quantity(limits["cpu"])))


@BOTH
def test_probes_ask_what_is_there(container: dict[str, Any]) -> None:
    """At the port of the image, for paths that the service has and that need no token."""
    (port,) = container["ports"]
    assert port["containerPort"] == Settings().port
    assert f"EXPOSE {port['containerPort']}\n" in DOCKERFILE
    paths = create_app(Settings()).openapi()["paths"]
    for kind in ("startup", "readiness", "liveness"):
        asked = container[f"{kind}Probe"]["httpGet"]
        assert asked["port"] in (port.get("name"), port["containerPort"])
        assert "get" in paths[asked["path"]]
        assert asked["path"] in OPEN_PATHS
        is_life = asked["path"] in ("/healthz", "/v2/health/live")
        assert is_life == (kind == "liveness")  # a pod without a model is not restarted


@BOTH
def test_settings_are_the_services(container: dict[str, Any]) -> None:
    """Each variable is one, with a value that it can have."""
    given = {one["name"]: one.get("value", "secret") for one in container["env"]}
    assert set(given) <= set(KEYS.values())
    Settings.from_env(given)


@BOTH
def test_nothing_is_allowed_that_is_not_needed(container: dict[str, Any]) -> None:
    """The image's user, no privileges, nothing written but /tmp."""
    own = container["securityContext"]
    context = {**POD["spec"]["securityContext"], **own} if container is CONTAINER else own
    user = f"{context['runAsUser']}:{context['runAsGroup']}"
    assert DOCKERFILE.rstrip().rpartition("FROM ")[2].count(f"USER {user}\n") == 1
    assert context["runAsNonRoot"]
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["readOnlyRootFilesystem"] is COMPOSE["x-serve"]["read_only"]
    assert own["capabilities"]["drop"] == COMPOSE["x-serve"]["cap_drop"]
    assert own["allowPrivilegeEscalation"] is False
    written = {one["mountPath"] for one in container["volumeMounts"] if not one.get("readOnly")}
    assert written == set(COMPOSE["x-serve"]["tmpfs"])


def test_models_are_where_the_image_looks() -> None:
    """Copied there before the service starts, by as little a right."""
    folder = re.search(r"CLASSIFY_MODELS=(\S+)", DOCKERFILE)
    assert folder is not None
    mounts = {one["name"]: one["mountPath"] for one in CONTAINER["volumeMounts"]}
    assert mounts["models"] == folder[1]
    (copier,) = POD["spec"]["initContainers"]
    assert copier["command"][-1] == copier["volumeMounts"][0]["mountPath"]
    assert copier["securityContext"] == CONTAINER["securityContext"]
    assert set(mounts) == {one["name"] for one in POD["spec"]["volumes"]}


def test_there_is_time_to_end() -> None:
    """To be forgotten by proxies, to answer who is inside, and to end what is computed."""
    environment = {one["name"]: one.get("value") for one in CONTAINER["env"]}
    drain_s = float(environment["CLASSIFY_DRAIN_S"])
    (command, seconds) = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert POD["spec"]["terminationGracePeriodSeconds"] > float(seconds) + drain_s + END_S


def test_everything_means_the_same_pods() -> None:
    """Selectors, the scaled object and ports lead to them."""
    labels = POD["metadata"]["labels"]
    service, budget, scaler = base("service"), base("disruption"), base("autoscaler")
    assert service["spec"]["selector"] == labels
    assert base("deployment")["spec"]["selector"]["matchLabels"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["ports"][0]["targetPort"] == CONTAINER["ports"][0]["name"]
    scaled = scaler["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == (
        "Deployment",
        base("deployment")["metadata"]["name"],
    )
    assert "replicas" not in base("deployment")["spec"]  # else applying it again would undo scaling
    assert scaler["spec"]["minReplicas"] > budget["spec"]["maxUnavailable"]


@pytest.mark.parametrize("folder", ["base", "gpu"])
def test_the_autoscaler_reads_what_the_service_says(folder: str) -> None:
    """Names from /metrics through the adapter to the autoscaler, a queue and what is busy."""
    page = Metrics().page().decode()
    (scaler,) = documents(KUBERNETES / folder / "autoscaler.yaml")
    metrics = scaler["spec"]["metrics"]
    (values,) = documents(KUBERNETES / "monitoring" / "adapter-values.yaml")
    series = {
        rule["name"]["as"]: rule["seriesQuery"].partition("{")[0]
        for rule in values["rules"]["custom"]
    }
    read = [series[one["pods"]["metric"]["name"]] for one in metrics if one["type"] == "Pods"]
    assert len(metrics) == 2
    assert "relume_waiting_images" in read
    assert all(f"# TYPE {name.removesuffix('_sum')} " in page for name in read)


def test_the_autoscaler_is_the_simulated_one() -> None:
    """Its aims and how it goes down are said; how it goes up is Kubernetes' default."""
    simulated, spec = Burst(), base("autoscaler")["spec"]
    queue, busy = spec["metrics"]
    assert float(queue["pods"]["target"]["averageValue"]) == simulated.target
    assert busy["resource"]["target"]["averageUtilization"] == 100 * simulated.cpu
    assert spec["behavior"].keys() == {"scaleDown"}
    assert spec["behavior"]["scaleDown"] == {
        "stabilizationWindowSeconds": 300,
        "policies": [{"type": "Percent", "value": 100 * simulated.down, "periodSeconds": 60}],
    }


def test_the_monitor_finds_the_service() -> None:
    """Labels, port and path are those of the pods."""
    (monitor,) = documents(KUBERNETES / "monitoring" / "servicemonitor.yaml")
    service = base("service")
    assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] == service["spec"]["ports"][0]["name"]
    notes = POD["metadata"]["annotations"]
    assert int(notes["prometheus.io/port"]) == Settings().port
    assert endpoint["path"] == notes["prometheus.io/path"] == "/metrics"
    assert endpoint["path"] in create_app(Settings()).openapi()["paths"]


def test_kserve_takes_the_runtime() -> None:
    """Its containers are Kubernetes' own; the rest are the fields of its CRD, restated.

    Source: kserve/kserve pkg/apis/serving/v1alpha1/servingruntime_types.go, `ServingRuntimeSpec`,
    and pkg/apis/serving/v1beta1, `PredictorSpec`, `ComponentExtensionSpec` and `ModelSpec`.
    """
    assert (RUNTIME["apiVersion"], RUNTIME["kind"]) == (
        "serving.kserve.io/v1alpha1",
        "ServingRuntime",
    )
    spec = RUNTIME["spec"]
    known = {"annotations", "supportedModelFormats", "protocolVersions", "containers", "volumes"}
    assert set(spec) == known
    inside = {"containers": spec["containers"], "volumes": spec["volumes"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": inside}
    kubernetes_validate.validate(pod, VERSIONS[0], strict=True)
    assert SERVER["name"] == "kserve-container"
    assert SERVER["image"] == COMPOSE["services"]["cpu"]["image"]
    assert spec["annotations"]["prometheus.kserve.io/port"] == str(Settings().port)


def test_kserve_takes_the_service() -> None:
    """It is served by the runtime, by the protocol that the service speaks, from a model's URI."""
    assert (INFERENCE["apiVersion"], INFERENCE["kind"]) == (
        "serving.kserve.io/v1beta1",
        "InferenceService",
    )
    predictor = INFERENCE["spec"]["predictor"]
    scaling = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "timeout"}
    assert set(predictor) == {*scaling, "model"}
    model = predictor["model"]
    assert set(model) == {"modelFormat", "runtime", "protocolVersion", "storageUri"}
    assert model["runtime"] == RUNTIME["metadata"]["name"]
    (offered,) = RUNTIME["spec"]["supportedModelFormats"]
    assert model["modelFormat"]["name"] == offered["name"]
    (protocol,) = RUNTIME["spec"]["protocolVersions"]
    assert model["protocolVersion"] == protocol
    paths = create_app(Settings()).openapi()["paths"]
    wanted = ("", "/health/live", "/health/ready", "/models/{name}", "/models/{name}/infer")
    assert all(f"/{protocol}{path}" in paths for path in wanted)
    cores = int(SERVER["resources"]["limits"]["cpu"])
    assert predictor["scaleTarget"] == cores * BATCH_CPU
    assert predictor["timeout"] >= Settings().body_s + Settings().request_s
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", INFERENCE["metadata"]["name"])
    mounted = {one["name"]: one.get("value") for one in SERVER["env"]}["CLASSIFY_MODELS"]
    assert mounted == "/mnt/models"  # pkg/constants/constants.go, DefaultModelLocalMountPath
