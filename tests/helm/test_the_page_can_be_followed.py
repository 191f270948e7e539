"""docs/kubernetes.md: its commands are run as far as they can be without a cluster, and every name in them is right."""

import re
from pathlib import Path

import pytest

from keyrotd.cli import exits
from keyrotd.cli.main import run
from tests.helm.charts import OLDEST, Manifest, Values, chart, faults, merged, newest, pods, tool
from tests.helm.page import commands, files, section
from tests.helm.schema import HELM

DEPLOY = "deploy/helm/"


def installed() -> list[tuple[str, list[Manifest]]]:
    """What each `helm install` and `helm upgrade` of the page sends, by release."""
    helm, yaml = tool("helm_python"), tool("yaml")
    written = files()
    found = []
    for _, verb, *words in (words for words in commands() if words[0] == "helm"):
        if verb == "dependency":
            assert words[0] == "update"
            assert chart(words[1].removeprefix(DEPLOY)).is_dir()
            continue
        release, path, *options = words
        assert verb in {"install", "upgrade"}
        assert options[:2] == ["--namespace", "tls"]
        values: Values = {}
        for option, file in zip(options[2::2], options[3::2], strict=True):
            assert option == "--values"
            values = merged(values, yaml.safe_load(written[file]))
        with helm.Chart.load(chart(path.removeprefix(DEPLOY))) as loaded:
            texts = loaded.render(values, name=release, namespace="tls")
        sent = [one for name, text in texts.items() if not name.endswith(".txt") for one in yaml.safe_load_all(text)]
        found.append((release, [manifest for manifest in sent if manifest is not None]))
    return found


def printed(capsys: pytest.CaptureFixture[str]) -> list[Manifest]:
    """The Secrets that the page's `keyrotd init` prints."""
    (init,) = (words for words in commands("Secrets") if words[0] == "keyrotd")
    command, _, file = " ".join(init[1:]).partition(" > ")
    assert file == "fleet-secrets.yaml"
    assert run(command.split()) == exits.DONE
    return list(tool("yaml").safe_load_all(capsys.readouterr().out))


@pytest.mark.parametrize("kubernetes", ["oldest", "newest"])
def test_what_the_page_installs_is_valid(kubernetes: str) -> None:
    version = OLDEST if kubernetes == "oldest" else newest()

    sent = installed()

    assert [release for release, _ in sent] == ["keyrotd", "edge", "keyrotd", "keyrotd"]
    assert [said for _, found in sent for manifest in found if (said := faults(manifest, version)) is not None] == []


def test_every_secret_that_is_mounted_is_one_that_the_page_makes(capsys: pytest.CaptureFixture[str]) -> None:
    made = {(secret["metadata"]["name"], key) for secret in printed(capsys) for key in secret["data"]}
    for words in commands("Secrets"):
        if words[3:6] == ["create", "secret", "generic"]:
            made |= {(words[6], word.split("=")[1]) for word in words if word.startswith("--from-file=")}

    wanted = {
        (source["secret"]["name"], item["key"])
        for _, found in installed()
        for _, template in pods(found)
        for volume in template["spec"]["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        if "secret" in source
        for item in source["secret"]["items"]
    }
    urls = re.findall(r"/etc/keyrotd-store/([\w.]+)", section("Schedulers"))

    assert wanted | {("keyrotd-store", key) for key in urls} <= made
    assert made - wanted - {("keyrotd-store", key) for key in urls} == {("keyrotd-operator", "operator.key")}


def test_every_object_that_the_page_names_is_one_that_it_installs(capsys: pytest.CaptureFixture[str]) -> None:
    there = {f"{m['kind'].lower()}/{m['metadata']['name']}" for _, found in installed() for m in found}
    there |= {f"secret/{secret['metadata']['name']}" for secret in printed(capsys)}
    named = {word for words in commands() if words[0] == "kubectl" for word in words if re.match("deployment/", word)}
    fetched = {f"secret/{words[5]}" for words in commands() if words[3:5] == ["get", "secret"]}
    spaces = {words[words.index("--namespace") + 1] for words in commands() if "--namespace" in words}

    assert {"deployment/edge", "deployment/keyrotd-scheduler"} <= named
    assert named | fetched <= there
    assert spaces == {"tls"}


def test_the_url_is_the_same_wherever_it_stands() -> None:
    urls = re.findall(r"rediss://[^\s\"]+", section(""))

    assert len(urls) == 3
    assert len(set(urls)) == 1


def test_what_is_included_is_what_the_library_has() -> None:
    (row,) = (files()["Chart.yaml"],)
    told = set(re.findall(r"(?m)^\| ((?:`\w+`(?:, )?)+) \|", section("Sidecars")))
    names = {name for cell in told for name in re.findall(r"`(\w+)`", cell)}
    library = (HELM / "keyrotd-sidecar/templates/_sidecar.tpl").read_text("utf-8")
    example = "".join(Path(path).read_text("utf-8") for path in (HELM / "examples/haproxy/templates").glob("*.yaml"))

    assert row in (HELM / "examples/haproxy/Chart.yaml").read_text("utf-8")
    assert names == set(re.findall(r'include "keyrotd-sidecar\.(\w+)"', example))
    assert names == set(re.findall(r'define "keyrotd-sidecar\.(\w+)"', library)) - {"config", "name"}
