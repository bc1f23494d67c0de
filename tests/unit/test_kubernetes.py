"""The Kubernetes manifests against the published schemas, against each other, and against what they run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from fastapi.routing import iter_route_contexts

from api.main import create_app
from shared import limits
from shared.database.roles import RIGHTS
from shared.metrics import LINE_EVENTS, instruments
from shared.settings import Settings
from tests import manifests
from tests.manifests import KUSTOMIZATIONS, Manifest, container, manifest, plain_environment, workloads
from worker.stretch import DATABASE_CONNECTIONS_MAX

KUBERNETES_VERSION = "1.37"
POSTGRESQL_CONNECTIONS = 97
"""What PostgreSQL has by default for others than superusers."""

DRAIN_SECONDS_MIN = 5.0
"""In which the nodes of a cluster, as a rule, have learnt that a pod takes no more requests."""

SETTINGS = {f"ONSALE_{name.upper()}" for name in Settings.model_fields}
ONSALE = "onsale-api", "onsale-worker"
DEFAULTS = Settings(database_url="postgresql://", redis_url="redis://")


def check(each: Manifest) -> None:
    """Against the published schema; a field that it does not have is an error."""
    if each["kind"] == "ScaledObject":
        schema = json.loads((Path(__file__).parent / "scaled_object.schema.json").read_text())
        jsonschema.validate(each, schema)
    else:
        kubernetes_validate.validate(each, KUBERNETES_VERSION, strict=True)


def schema_errors() -> tuple[type[Exception], ...]:
    return jsonschema.ValidationError, kubernetes_validate.ValidationError


@pytest.mark.parametrize("each", manifests.everything(), ids=lambda each: "-".join(manifests.identity(each)))
def test_a_manifest_is_what_kubernetes_understands(each: Manifest) -> None:
    check(each)


def test_a_misspelt_field_is_noticed() -> None:
    for kind, name in (("Deployment", "onsale-api"), ("ScaledObject", "onsale-worker")):
        each = manifest(kind, name)
        check(each)
        with pytest.raises(schema_errors()):
            check(each | {"spec": each["spec"] | {"replica": 2}})


def test_the_scaling_of_workers_is_what_an_autoscaler_understands() -> None:
    spec = manifest("ScaledObject", "onsale-worker")["spec"]
    check(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "keda-hpa-onsale-worker"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", **spec["scaleTargetRef"]},
                "minReplicas": spec["minReplicaCount"],
                "maxReplicas": spec["maxReplicaCount"],
                "behavior": spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
            },
        }
    )
    assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]


def test_the_scaling_of_workers_asks_for_a_metric_that_there_is() -> None:
    (trigger,) = manifest("ScaledObject", "onsale-worker")["spec"]["triggers"]
    named = set(re.findall(r"onsale_\w+", trigger["metadata"]["query"]))
    assert named == {LINE_EVENTS} <= instruments().keys()


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: path.parent.name)
def test_a_kustomization_names_every_file_beside_it_and_no_other(path: Path) -> None:
    kustomization = manifests.documents(path)[0]
    named = [*kustomization["resources"]]
    named += [patch["path"] for patch in kustomization.get("patches", ()) if "path" in patch]
    assert all((path.parent / entry).exists() for entry in named)
    beside = {each.name for each in path.parent.glob("*.yaml")} - {manifests.KUSTOMIZATION}
    assert {entry for entry in named if "/" not in entry} == beside


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: path.parent.name)
def test_a_patch_is_for_something_that_is_there(path: Path) -> None:
    there = {manifests.identity(each) for each in manifests.resources(path)}
    for patch in manifests.documents(path)[0].get("patches", ()):
        if "path" in patch:
            targets = {manifests.identity(each) for each in manifests.documents(path.parent / patch["path"])}
        else:
            targets = {(patch["target"]["kind"], patch["target"]["name"])}
        assert targets <= there


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl, which renders without a cluster")
@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: path.parent.name)
def test_what_kubectl_renders_is_what_kubernetes_understands(path: Path) -> None:
    rendered = subprocess.run(
        ["kubectl", "kustomize", str(path.parent)], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    for each in yaml.safe_load_all(rendered):
        check(each)
        if each["kind"] != "Namespace":
            assert each["metadata"]["namespace"] == "onsale"


def test_every_setting_is_one_that_the_code_has() -> None:
    named = {each["name"] for name in workloads() for each in container(name)["env"]}
    for path in manifests.FOLDER.rglob("*.yaml"):
        for each in manifests.documents(path):
            if each["kind"] == "ConfigMap":
                named |= each["data"].keys()
    assert named - SETTINGS == {"DATABASE_URL", "REDIS_URL", "POSTGRESQL_ADDRESS"}
    assert manifest("ConfigMap", "onsale")["data"]["ONSALE_AUTH"] == "required"


def test_images_are_those_of_the_compose_file(project_root: Path) -> None:
    services = yaml.safe_load((project_root / "docker-compose.yml").read_text())["services"].values()
    used = {container(name)["image"] for name in workloads()}
    assert used == set(ONSALE) <= {service["image"] for service in services}
    for path in KUSTOMIZATIONS:
        assert {image["name"] for image in manifests.documents(path)[0].get("images", ())} <= used


def test_commands_are_those_of_the_images_and_of_the_compose_file(project_root: Path) -> None:
    services = yaml.safe_load((project_root / "docker-compose.yml").read_text())["services"]
    for name in ONSALE:
        assert "command" not in container(name)
        assert "args" not in container(name)
    assert container("onsale-migration")["command"] == services["migrate"]["command"]
    assert container("onsale-webhooks")["command"] == services["webhooks"]["command"]


def test_ports_are_those_that_the_processes_listen_on(project_root: Path) -> None:
    (port,) = container("onsale-api")["ports"]
    assert f"\nEXPOSE {port['containerPort']}\n" in (project_root / "Dockerfile.api").read_text()
    (metrics,) = container("onsale-worker")["ports"]
    told = plain_environment("onsale-worker")["ONSALE_WORKER_METRICS_PORT"]
    assert str(metrics["containerPort"]) == told
    for name, pod in workloads().items():
        annotations = pod["metadata"].get("annotations", {})
        ports = container(name).get("ports", [])
        if "prometheus.io/port" in annotations:
            assert annotations["prometheus.io/port"] in {str(each["containerPort"]) for each in ports}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in container(name):
                assert container(name)[probe]["httpGet"]["port"] in {each["name"] for each in ports}


def test_every_selector_finds_a_pod() -> None:
    labels = [pod["metadata"]["labels"] for pod in workloads().values()]
    for each in manifests.everything():
        spec = each.get("spec", {})
        selector = spec.get("selector", spec.get("podSelector", {}))
        wanted = selector.get("matchLabels", selector).items()
        assert any(wanted <= each_labels.items() for each_labels in labels), manifests.identity(each)
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for each in (each for each in manifests.everything() if each["kind"] == kind):
            assert manifest("Deployment", each["spec"]["scaleTargetRef"]["name"])


@pytest.mark.parametrize("name", sorted(workloads()))
def test_a_pod_has_no_rights_that_it_does_not_need(name: str) -> None:
    spec = workloads()[name]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    rights = container(name)["securityContext"]
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert {"cpu", "memory"} <= container(name)["resources"]["requests"].keys()
    assert "memory" in container(name)["resources"]["limits"]


@pytest.mark.parametrize(
    ("name", "role", "key"),
    [
        ("onsale-api", "onsale_api", "api"),
        ("onsale-worker", "onsale_worker", "worker"),
        ("onsale-webhooks", "onsale_webhooks", "webhooks"),
        ("onsale-migration", "onsale", "owner"),
        ("onsale-keys", "onsale", "owner"),
    ],
)
def test_a_process_has_its_own_role_and_no_passwords_of_others(name: str, role: str, key: str) -> None:
    assert plain_environment(name)["DATABASE_URL"] == f"postgresql://{role}@$(POSTGRESQL_ADDRESS)"
    items = {each["path"]: each["key"] for each in workloads()[name]["spec"]["volumes"][0]["secret"]["items"]}
    roles = {path: items.pop(path) for path in list(items) if path.startswith("roles/")}
    assert items == {"database": key, "redis": "redis"}
    if name == "onsale-migration":
        assert roles.keys() == {f"roles/{each}/password" for each in RIGHTS}
        assert plain_environment(name)["ONSALE_PASSWORDS_DIRECTORY"] == "/run/secrets/onsale/roles"
    else:
        assert not roles
    mounted = {each["name"]: each["mountPath"] for each in container(name)["volumeMounts"]}
    told = manifest("ConfigMap", "onsale")["data"]
    assert told["ONSALE_DATABASE_PASSWORD_FILE"] == f"{mounted['passwords']}/database"
    assert told["ONSALE_REDIS_PASSWORD_FILE"] == f"{mounted['passwords']}/redis"


def test_processes_are_given_the_time_that_they_need_to_end() -> None:
    redis_seconds = DEFAULTS.redis_timeout_seconds * (1 + limits.REDIS_RETRIES_MAX)
    grace = {name: pod["spec"].get("terminationGracePeriodSeconds", 30) for name, pod in workloads().items()}
    assert grace["onsale-worker"] > DEFAULTS.transaction_seconds_max + DEFAULTS.lease_seconds + redis_seconds
    assert grace["onsale-webhooks"] > (
        DEFAULTS.webhooks_attempt_seconds_max
        + limits.WEBHOOK_STRETCH_SECONDS_MAX
        + limits.WEBHOOK_CLAIM_MARGIN_SECONDS
    )
    before = float(plain_environment("onsale-api")["ONSALE_DRAIN_SECONDS"])
    answering = DEFAULTS.statement_timeout_ms / 1000 + DEFAULTS.lock_timeout_ms / 1000 + redis_seconds
    assert before >= DRAIN_SECONDS_MIN
    assert grace["onsale-api"] > before + limits.STREAM_SEND_SECONDS_MAX + answering


def test_postgresql_has_a_connection_for_every_process_that_there_may_be() -> None:
    api = manifest("HorizontalPodAutoscaler", "onsale-api")["spec"]["maxReplicas"]
    workers = manifest("ScaledObject", "onsale-worker")["spec"]["maxReplicaCount"]
    webhooks = manifest("Deployment", "onsale-webhooks")["spec"]["replicas"]
    # The process makes messages over one and delivers over one a thread, half as many threads for the slow.
    threads = DEFAULTS.webhooks_threads + (DEFAULTS.webhooks_threads + 1) // 2
    needed = (
        api * DEFAULTS.api_database_connections_max
        + workers * DATABASE_CONNECTIONS_MAX
        + webhooks * (1 + threads)
    )
    assert needed + 2 <= POSTGRESQL_CONNECTIONS


def test_the_schema_comes_first_and_the_api_last() -> None:
    def wave(kind: str, name: str) -> int:
        return int(manifest(kind, name)["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"])

    assert wave("Job", "onsale-migration") < wave("Deployment", "onsale-worker")
    assert wave("Deployment", "onsale-worker") == wave("Deployment", "onsale-webhooks")
    assert wave("Deployment", "onsale-webhooks") < wave("Deployment", "onsale-api")


def test_clients_and_buyers_are_let_in_and_nobody_outside_reaches_the_metrics() -> None:
    (rule,) = manifest("Ingress", "onsale-api")["spec"]["rules"]
    let_in = [(each["path"], each["pathType"] == "Prefix") for each in rule["http"]["paths"]]
    served = {route.path for route in iter_route_contexts(create_app().routes) if route.path}
    left_out = {
        each
        for each in served
        if not any(each == path or (is_prefix and each.startswith(f"{path}/")) for path, is_prefix in let_in)
    }
    assert left_out == {"/metrics", "/health", "/ready", "/", "/box-office/{event_id}"}
