"""What `kubectl apply -k` is given fits Kubernetes' schemas, and our rules about what runs in a cluster."""

import re
import shutil
import subprocess
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from api.access import SCOPES
from shared.settings import Settings
from shared.webhook_address import NEVER

FOLDER = Path(__file__).resolve().parents[2] / "deploy/kubernetes"
BASE = FOLDER / "base"
VERSION = "1.34"
FILES = sorted(path for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml")


def documents(*files: Path) -> list[dict[str, Any]]:
    """Return every document of these files."""
    return [document for path in files for document in yaml.safe_load_all(path.read_text())]


ALL = documents(*FILES)
OPERATOR = documents(FOLDER / "components/operator/operator.yaml")
PODS = [item for item in ALL + OPERATOR if item["kind"] in ("Deployment", "Job")]
#: What is somebody's own, beside what nothing is ever sent to.
PRIVATE = ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15")
README = (FOLDER / "README.md").read_text()


def name_of(item: dict[str, Any]) -> str:
    """Return what a test's id shows."""
    return f"{item['kind']}-{item['metadata']['name']}"


def named(name: str) -> dict[str, Any]:
    """Return the document of this kind and name."""
    return next(item for item in ALL + OPERATOR if name_of(item) == name)


def pod_of(name: str) -> dict[str, Any]:
    """Return what the pods of this deployment are."""
    pod: dict[str, Any] = named(f"Deployment-{name}")["spec"]["template"]["spec"]
    return pod


def chosen_by(spec: dict[str, Any]) -> set[str]:
    """Return the pods that a selector chooses, by their label."""
    selector = spec.get("podSelector", spec.get("selector"))
    wanted = selector.get("matchLabels", selector).get("app.kubernetes.io/name")
    return {wanted} if wanted else set(selector["matchExpressions"][0]["values"])


@pytest.mark.parametrize("item", ALL + OPERATOR, ids=name_of)
def test_each_document_fits_the_schema_without_an_unknown_field(item: dict[str, Any]) -> None:
    """Strictly: a field that is spelled wrong would be ignored by the cluster."""
    kubernetes_validate.validate(item, VERSION, strict=True)


def test_the_validator_finds_what_is_wrong() -> None:
    """So the test above can fail."""
    broken = next(item for item in documents(BASE / "api.yaml") if item["kind"] == "Deployment")
    broken["spec"]["template"]["spec"]["terminationGracePeriod"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSION, strict=True)


def test_the_kustomization_names_every_file() -> None:
    """One that is not named is not applied."""
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == [path.name for path in FILES]


@pytest.mark.parametrize("item", PODS, ids=name_of)
def test_a_pod_has_no_rights_that_it_does_not_need(item: dict[str, Any]) -> None:
    """No root, no writable root, no capabilities, no access to the cluster, and bounded memory and disk."""
    pod = item["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"])


@pytest.mark.parametrize("kind", ["PodDisruptionBudget", "Service", "NetworkPolicy"])
def test_what_selects_pods_selects_some(kind: str) -> None:
    """A label that is spelled wrong would protect nothing, and say so nowhere."""
    labels = {item["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] for item in PODS}
    for item in (item for item in ALL if item["kind"] == kind):
        assert chosen_by(item["spec"]) <= labels


def test_every_pod_is_behind_one_policy_for_what_goes_out() -> None:
    """Also one that is added; and behind one alone, because policies add up. Nothing comes in unasked."""
    labels = sorted(item["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] for item in PODS)
    policies = [item["spec"] for item in ALL if item["kind"] == "NetworkPolicy"]
    chosen = {
        kind: [name for policy in policies if kind in policy["policyTypes"] for name in chosen_by(policy)]
        for kind in ("Ingress", "Egress")
    }
    assert sorted(chosen["Egress"]) == labels
    assert set(chosen["Ingress"]) == set(labels)


def test_the_steps_name_the_ports_that_are_open() -> None:
    """What lies at another one seems not to answer. The stores that the pages describe lie at these."""
    anywhere = [
        {port["port"] for port in rule["ports"]}
        for rule in named("NetworkPolicy-histoqueue")["spec"]["egress"]
    ]
    said = re.search(r"those of `base/network.yaml` \(([0-9,; ]+)\)", README)
    assert said
    assert set(map(int, re.findall(r"\d+", said[1]))) == set().union(*anywhere) - {53}
    page = (FOLDER.parents[1] / "docs/how-to/object-store.md").read_text()
    assert set(map(int, re.findall(r"_URL=http://\S+:(\d+)", page))) < set().union(*anywhere)


def test_what_tells_webhooks_gets_nowhere_inside() -> None:
    """The second lock is no wider than the first: what the program never sends to, the network keeps out."""
    policy = named("NetworkPolicy-histoqueue-webhooks")["spec"]
    anywhere = [rule for rule in policy["egress"] if "to" not in rule]
    # Names, Redis and its Sentinels; the object store is not among them.
    assert {port["port"] for rule in anywhere for port in rule["ports"]} == {53, 6379, 6380, 26379}
    (rule,) = (rule for rule in policy["egress"] if "to" in rule)
    for block in (peer["ipBlock"] for peer in rule["to"]):
        network, left_out = ip_network(block["cidr"]), [ip_network(text) for text in block["except"]]
        for inside in (*NEVER, *map(ip_network, PRIVATE)):
            if inside.version == network.version and inside.overlaps(network):
                assert any(inside.subnet_of(other) for other in left_out), inside


def test_what_tells_webhooks_has_no_key_of_the_object_store() -> None:
    """It needs none, and sends to hosts that users name: no whole secret, no account with a role."""
    pod = pod_of("histoqueue-webhooks")
    (container,) = pod["containers"]
    assert all("secretRef" not in source for source in container["envFrom"])
    given = {item["name"]: item.get("valueFrom", item.get("value")) for item in container["env"]}
    assert given.pop("AWS_EC2_METADATA_DISABLED") == "true"
    assert given.keys() == {"REDIS_URL", "WEBHOOK_SECRET"}
    assert all(source["secretKeyRef"]["key"] == name for name, source in given.items())
    assert named(f"ServiceAccount-{pod['serviceAccountName']}") != named("ServiceAccount-histoqueue")


def test_every_setting_there_exists() -> None:
    """One that nothing reads would be set in vain."""
    names = next(item for item in ALL if item["kind"] == "ConfigMap")["data"]
    assert {name.lower() for name in names} <= set(Settings.model_fields)


def test_a_worker_may_finish_its_micro_batch_and_replace_a_greedy_engine() -> None:
    """Its grace is longer than the engine may take, its memory more than the engine's."""
    pod = pod_of("histoqueue-worker")
    assert pod["terminationGracePeriodSeconds"] > Settings().engine_timeout_seconds + 15
    (limit,) = [container["resources"]["limits"]["memory"] for container in pod["containers"]]
    assert int(limit.removesuffix("Gi")) * 2**30 > Settings().engine_memory_bytes + 500_000_000


def test_what_tells_webhooks_is_ready_by_the_check_that_compose_makes() -> None:
    """The image's own check is an inference worker's; and no restart would mend a Redis that is away."""
    compose = yaml.safe_load((FOLDER.parents[1] / "docker-compose.yml").read_text())
    (container,) = pod_of("histoqueue-webhooks")["containers"]
    check = ["CMD", *container["readinessProbe"]["exec"]["command"]]
    assert check == compose["services"]["webhooks"]["healthcheck"]["test"]
    assert "livenessProbe" not in container


def test_a_workers_metrics_are_reached_by_prometheus_and_nobody_else() -> None:
    """They ask for no key, so not even the pods beside it may."""
    (container,) = pod_of("histoqueue-worker")["containers"]
    (port,) = container["ports"]
    (address,) = (item["value"] for item in container["env"] if item["name"] == "WORKER_METRICS_ADDRESS")
    assert (
        Settings(worker_metrics_address=address).worker_metrics_address == f"0.0.0.0:{port['containerPort']}"
    )
    (rule,) = named("NetworkPolicy-histoqueue-worker")["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": port["containerPort"]}]
    # Not the label that opens the API: an ingress controller's namespace has that one.
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"histoqueue/may-scrape": "true"}}}]
    assert "`histoqueue/may-scrape=true`" in README


def test_the_operator_has_what_the_api_has_and_does_nothing_by_itself() -> None:
    """So that every command of `ops` finds the servers, and none is run by accident."""
    operator, api = pod_of("histoqueue-operator"), pod_of("histoqueue-api")
    assert operator["serviceAccountName"] == api["serviceAccountName"]
    assert operator["securityContext"] == api["securityContext"]
    (pod,), (server,) = operator["containers"], api["containers"]
    assert all(pod[field] == server[field] for field in ("image", "envFrom", "securityContext"))
    assert pod["command"] == ["sleep", "infinity"]


def test_the_steps_make_a_key_before_the_api_begins() -> None:
    """It refuses to begin without one; and nowhere but in a pod are the secrets that making one takes."""
    api = named("Deployment-histoqueue-api")
    left_out = re.search(r"kubectl apply -k .+ -l '(\S+)!=(\S+)'\n", README)
    assert left_out
    assert api["metadata"]["labels"] == {left_out[1]: left_out[2]}
    steps = [
        "components/operator]",
        left_out[0],
        "exec -it deploy/histoqueue-operator -- python -m ops.keys create --name operator --scope admin\n",
        "`kubectl apply -k <your overlay>`\n",
    ]
    assert sorted(steps, key=README.index) == steps


def test_no_secret_is_made_by_a_command_that_may_fail_unseen() -> None:
    """`"$(command)"` among the arguments is an empty secret where the command is not there."""
    for page in FOLDER.rglob("README.md"):
        for line in page.read_text().splitlines():
            assert "$(" not in line or re.fullmatch(
                r' +\w+="\$\((docker run --rm|kubectl exec) .+\)" &&', line
            )


def test_the_scaler_follows_what_is_queued_and_running() -> None:
    """KEDA's own kind has no schema here: its fields are checked one by one."""
    folder = FOLDER / "components/autoscaling"
    scaler, key = documents(folder / "scaledobject.yaml")
    component = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert component["kind"] == "Component"
    assert component["resources"] == ["scaledobject.yaml"]
    assert (scaler["apiVersion"], scaler["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    spec = scaler["spec"]
    assert spec["scaleTargetRef"]["name"] in {item["metadata"]["name"] for item in PODS}
    assert 1 <= spec["minReplicaCount"] < spec["maxReplicaCount"]
    (trigger,) = spec["triggers"]
    assert trigger["type"] == "metrics-api"
    service = next(item for item in ALL if item["kind"] == "Service")
    port = service["spec"]["ports"][0]["port"]
    # KEDA's namespace is another one: a bare name would be looked for there.
    assert trigger["metadata"]["url"] == f"http://{service['metadata']['name']}.default.svc:{port}/capacity"
    assert trigger["metadata"]["valueLocation"] == "open"
    # It shows a key that may read that page, or is answered 401.
    assert trigger["metadata"]["authMode"] == "apiKey"
    assert (key["apiVersion"], key["kind"]) == ("keda.sh/v1alpha1", "TriggerAuthentication")
    assert trigger["authenticationRef"] == {"name": key["metadata"]["name"]}
    (secret,) = key["spec"]["secretTargetRef"]
    assert secret["parameter"] == "apiKey"
    page = (folder / "README.md").read_text()
    assert f"ops.keys create --name keda --scope {SCOPES['capacity.capacity']})" in page
    assert f"secret generic {secret['name']} --from-literal={secret['key']}=" in page


def test_a_worker_with_a_gpu_is_the_worker_with_more() -> None:
    """The patch fits the base by its names, and what it makes fits the schema and the rules above."""
    folder = FOLDER / "components/gpu"
    component = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert (component["kind"], component["patches"]) == ("Component", [{"path": "worker.yaml"}])
    (patch,) = documents(folder / "worker.yaml")
    worker = next(item for item in documents(BASE / "worker.yaml") if name_of(item) == name_of(patch))
    (container,) = worker["spec"]["template"]["spec"]["containers"]
    (more,) = patch["spec"]["template"]["spec"]["containers"]
    assert more["name"] == container["name"]
    # Named in the patch: `images` would rename that of the pods that tell webhooks too.
    assert [image["name"] for image in component["images"]] == [more["image"]] != [container["image"]]
    container |= more
    worker["spec"]["strategy"] = patch["spec"]["strategy"]
    worker["spec"]["template"]["spec"]["tolerations"] = patch["spec"]["template"]["spec"]["tolerations"]
    kubernetes_validate.validate(worker, VERSION, strict=True)
    test_a_pod_has_no_rights_that_it_does_not_need(worker)
    assert more["resources"]["limits"]["nvidia.com/gpu"] == "1"
    settings = {item["name"].lower(): item["value"] for item in more["env"]}
    assert Settings(**settings).require_gpu
    limit = int(more["resources"]["limits"]["memory"].removesuffix("Gi")) * 2**30
    assert limit > Settings(**settings).engine_memory_bytes + 500_000_000


@pytest.mark.parametrize(
    "components", [[], ["operator"], ["autoscaling"], ["gpu"], ["operator", "gpu", "autoscaling"]]
)
def test_kustomize_renders_it(components: list[str], tmp_path: Path) -> None:
    """As `kubectl apply -k` will; each rendered document fits its schema, with the images' versions in it."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not on this machine")
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    text = {
        "resources": ["../kubernetes/base"],
        "components": [f"../kubernetes/components/{name}" for name in components],
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(text))
    done = subprocess.run(["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rendered = list(yaml.safe_load_all(done.stdout))
    expected = ALL + (OPERATOR if "operator" in components else [])
    assert {name_of(item) for item in expected} <= {name_of(item) for item in rendered}
    for item in rendered:
        if "keda.sh" in item["apiVersion"]:
            continue
        kubernetes_validate.validate(item, VERSION, strict=True)
        if item["kind"] in ("Deployment", "Job"):
            name, image = item["metadata"]["name"], item["spec"]["template"]["spec"]["containers"][0]["image"]
            assert image.endswith(":0.1.0")
            # The worker's alone: who else has its image needs no card.
            assert ("gpu" in image) is (name == "histoqueue-worker" and "gpu" in components)
            if name == "histoqueue-worker":
                assert ("replicas" not in item["spec"]) is ("autoscaling" in components)
