"""
A pod of this machine: volumes laid out as a kubelet lays them, and containers as processes.

No namespace is made. A container's paths are the pod's own folder and what the container calls it, so in configuration
and commands they are written anew; its port numbers likewise, where two pods have the same.
"""

import base64
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keyrotd.testing.children import start_child, stop_child
from tests.helm.charts import Manifest

GROUP = 65532


@dataclass
class Pod:
    """`ports`: of the manifests to of this machine. Objects are ConfigMaps and Secrets by (kind, name)."""

    template: Manifest
    objects: Mapping[tuple[str, str], Mapping[str, bytes]]
    root: Path
    ports: Mapping[int, int]
    stack: ExitStack
    turns: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.volumes: dict[str, Any] = {volume["name"]: volume for volume in self.template["spec"]["volumes"]}
        for container in self.containers.values():
            for mount in container["volumeMounts"]:
                self.mount(self.volumes[mount["name"]], self.at(mount["mountPath"]))

    @property
    def containers(self) -> dict[str, Manifest]:
        spec = self.template["spec"]
        return {found["name"]: found for found in (*spec.get("initContainers", []), *spec["containers"])}

    def at(self, path: str) -> Path:
        return self.root / path.removeprefix("/")

    def mount(self, volume: Manifest, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if "emptyDir" in volume:
            own(folder)
            folder.chmod(0o2777)  # as the kubelet makes it for a pod with an fsGroup
            return
        if "hostPath" in volume:
            assert volume["hostPath"] == {"path": f"/{folder.relative_to(self.root)}", "type": "Directory"}
            return  # made by whoever runs the node
        files, mode = self.files(volume)
        self.turn(folder, files, mode)

    def files(self, volume: Manifest) -> tuple[dict[str, bytes], int]:
        """What a volume of ConfigMaps and Secrets shows, by path, and the mode of its files."""
        if "projected" in volume:
            projected = volume["projected"]
            return self.projected(projected["sources"]), projected["defaultMode"]
        kind, key = ("ConfigMap", "name") if "configMap" in volume else ("Secret", "secretName")
        about = volume["configMap" if kind == "ConfigMap" else "secret"]
        return dict(self.objects[kind, about[key]]), about.get("defaultMode", 0o644)

    def projected(self, sources: Sequence[Manifest]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for source in sources:
            ((word, about),) = source.items()
            held = self.objects["ConfigMap" if word == "configMap" else "Secret", about["name"]]
            for item in about["items"]:
                assert item["path"] not in found, "two sources of one path: the API refuses it"
                found[item["path"]] = held[item["key"]]
        return found

    def turn(self, folder: Path, files: Mapping[str, bytes], mode: int) -> None:
        """Show these files from now on, in one step: links through `..data`, which leads to a new folder each time."""
        folder.chmod(0o3777)
        self.turns += 1
        version = folder / f"..{self.turns}"
        for path, content in files.items():
            target = version / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.rewritten(content.decode()).encode())
            own(target)
            target.chmod(mode)
        (folder / "..new").symlink_to(version.name)
        (folder / "..new").rename(folder / "..data")
        for top in {path.partition("/")[0] for path in files}:
            if not (folder / top).is_symlink():
                (folder / top).symlink_to(f"..data/{top}")

    def rewritten(self, text: str) -> str:
        for path in sorted(self.paths, key=len, reverse=True):
            text = re.sub(rf"(?<![\w/-]){re.escape(path)}(?![\w-])", str(self.at(path)), text)
        for theirs, ours in self.ports.items():
            text = re.sub(rf"(?<=[: ]){theirs}\b", str(ours), text)
        text = text.replace("0.0.0.0:", "127.0.0.1:").replace("address: 0.0.0.0", "address: 127.0.0.1")
        return text if os.geteuid() == 0 else text.replace(str(GROUP), str(os.getgid()))

    @property
    def paths(self) -> set[str]:
        return {mount["mountPath"] for found in self.containers.values() for mount in found["volumeMounts"]}

    def start(self, container: str, program: Sequence[str]) -> Path:
        """Run it: `program` stands for the image's entrypoint. Return its log."""
        about = self.containers[container]
        rest = [*about.get("command", [])[1:], *about.get("args", [])]
        settings = [f"{found['name']}={self.rewritten(found['value'])}" for found in about.get("env", [])]
        argv = ["/usr/bin/env", *settings, *program, *map(self.rewritten, rest)]
        log = self.root / f"{container}.log"
        self.stack.callback(stop_child, start_child(argv, log=log))
        return log

    def probe(self, container: str, probe: str) -> bool:
        """What the kubelet would take from this probe, now."""
        about = self.containers[container][probe]
        if "exec" in about:
            program, *rest = about["exec"]["command"]
            assert program == "python3", "what every image of keyrotd has"
            argv = [sys.executable, *(self.rewritten(word) for word in rest)]
            return (
                subprocess.run(argv, capture_output=True, check=False, timeout=about["timeoutSeconds"]).returncode == 0
            )
        asked = about["httpGet"]
        named = {port["name"]: port["containerPort"] for port in self.containers[container].get("ports", [])}
        port = self.ports[named.get(asked["port"], asked["port"])]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{asked['path']}", timeout=5) as answer:
                return bool(200 <= answer.status < 400)
        except (urllib.error.URLError, ConnectionError):
            return False


def own(path: Path) -> None:
    """Give it to the pod's group, where we may."""
    if os.geteuid() == 0:
        os.chown(path, 0, GROUP)


def objects(manifests: Sequence[Manifest]) -> dict[tuple[str, str], dict[str, bytes]]:
    """The content of ConfigMaps and Secrets."""
    found: dict[tuple[str, str], dict[str, bytes]] = {}
    for manifest in manifests:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if kind == "ConfigMap":
            found[kind, name] = {key: text.encode() for key, text in manifest["data"].items()}
        elif kind == "Secret":
            found[kind, name] = {key: base64.b64decode(text) for key, text in manifest["data"].items()}
    return found
