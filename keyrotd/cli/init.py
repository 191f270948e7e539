"""keyrotd init: a configuration that runs as it is, and secrets, so that nobody ever wants a mode without them."""

import base64
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from keyrotd.config import RING_NAME
from keyrotd.core.errors import ConfigError, KeyrotdError
from keyrotd.daemon.clock import SystemClock
from keyrotd.seal.keyedits import dated
from keyrotd.seal.keyfiles import make_secrets
from keyrotd.servers import files
from keyrotd.servers.files import Access
from keyrotd.store import addresses

_EPILOG = """
\b
Examples:
  keyrotd init /etc/keyrotd
  keyrotd init /etc/keyrotd --ring edge-eu --store 'rediss://store.example?password_file=/etc/keyrotd/secrets/store.password'
  keyrotd init --format kubernetes --store redis://valkey.default.svc | kubectl apply -f -
"""


def _ring(_ctx: click.Context, _param: click.Parameter, name: str) -> str:
    if not RING_NAME.fullmatch(name):
        raise click.BadParameter(f"{name!r} is not lower-case letters, digits and `._-`, at most 63")
    return name


def _store(_ctx: click.Context, _param: click.Parameter, url: str | None) -> str | None:
    if url is None:
        return None
    try:
        address = addresses.parse(url, runtime_dir=Path("/run/keyrotd"))
    except ConfigError as error:
        raise click.BadParameter("; ".join(f"{words} ({hint})" for words, hint in error.faults)) from None
    if address.password is not None:
        raise click.BadParameter("holds a password, which every user of this machine can see; use ?password_file=PATH")
    return url


@click.command(epilog=_EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), required=False)
@click.option("--ring", callback=_ring, default="edge", show_default=True, metavar="NAME", help="The first ring.")
@click.option("--store", callback=_store, metavar="URL", help="Where keys are shared.  [default: embedded:]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["files", "kubernetes"]),
    default="files",
    show_default=True,
    help="Files below DIR, or manifests on standard output.",
)
def init(folder: Path | None, ring: str, store: str | None, form: str) -> None:
    """
    Write keyrotd.toml and secrets/ into DIR. What is there already is never touched.

    With --format kubernetes nothing is written: Secrets go to standard output, for the charts in deploy/helm.
    """
    made_at = SystemClock().wall_ms()
    secrets = {name: dated(text, made_at) for name, text in make_secrets(ring, os.urandom).items()}
    if form == "kubernetes":
        if folder is not None:
            raise click.UsageError("--format kubernetes writes no files: leave DIR out")
        if store is None or store == "embedded:":
            raise click.UsageError("--format kubernetes needs --store: one that every pod reaches")
        click.echo("\n---\n".join(_manifests(ring, secrets)))
        click.echo(_advice(ring, store), err=True)
        return
    if folder is None:
        raise click.UsageError("DIR is missing: where shall keyrotd.toml and secrets/ go?")
    url = store or "embedded:"
    # Only root has the system's directories; anybody may try everything in a directory of one's own.
    own = os.geteuid() != 0
    config = _toml(ring, url, runtime_dir="run" if own else "/run/keyrotd", state_dir="state" if own else _STATE_DIR)
    _write(folder, config, secrets)
    click.echo("\n".join(_told(folder, ring, url, secrets)))


_STATE_DIR = "/var/lib/keyrotd"


def _write(folder: Path, config: str, secrets: dict[str, str]) -> None:
    """Write all or nothing: everything is made beside its place, and moved where nothing must be yet."""
    existing = [path for path in (folder / "keyrotd.toml", folder / "secrets") if os.path.lexists(path)]
    if existing:
        found = ", ".join(map(str, existing))
        raise KeyrotdError(f"{found}: exists already; nothing was written", hint="name another DIR, or move it away")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".keyrotd-init.", dir=folder))
        try:
            (made / "secrets").mkdir(mode=0o700)
            for name, content in secrets.items():
                files.write(made / "secrets" / name, content.encode())
            files.write(made / "keyrotd.toml", config.encode(), Access(mode=0o644))
            # Neither replaces a file that came to be since we looked.
            (made / "secrets").rename(folder / "secrets")
            (folder / "keyrotd.toml").hardlink_to(made / "keyrotd.toml")
        finally:
            shutil.rmtree(made)
    except OSError as error:
        find, hint = files.words(error)
        raise KeyrotdError(f"{error.filename or folder}: {find}", hint=hint) from error


def _told(folder: Path, ring: str, url: str, secrets: dict[str, str]) -> Iterator[str]:
    config = folder / "keyrotd.toml"
    yield f"wrote {config}"
    yield f"wrote {folder / 'secrets'}/, which only its owner may open; each host gets no more than it needs:"
    width = max(map(len, secrets))
    for name in secrets:
        yield f"    {name:<{width}}  {_WHO.get(name, f'schedulers, and the agents of ring {ring}')}"
    yield ""
    yield "next:"
    yield f"    add a [[server]]: one for HAProxy waits at the end of {config}"
    yield f"    keyrotd check --config {config}"
    if url == "embedded:":
        yield f"    keyrotd standalone --config {config}"
    else:
        yield f"    keyrotd scheduler --config {config}    on two hosts or more"
        yield f"    keyrotd agent --config {config}        on every host with TLS servers"
    yield f"    keyrotd status --config {config}"
    yield f"a service with a user of its own must own its secrets: chown -R keyrotd {folder / 'secrets'}"


#: The KEK, named after its ring, is everyone else's.
_WHO = {
    "signing.key": "schedulers, nobody else: whoever has it decides which keys the fleet takes",
    "verify.key": "every host; no secret",
    "operator.key": "people who may rotate and revoke; no host that runs a daemon",
    "operator-verify.key": "schedulers; no secret",
}


def _toml(ring: str, url: str, *, runtime_dir: str, state_dir: str) -> str:
    # JSON's way to quote printable text is TOML's.
    return _TEMPLATE.format(
        ring=ring,
        url=json.dumps(url, ensure_ascii=False),
        runtime_dir=json.dumps(runtime_dir),
        state_dir=json.dumps(state_dir),
    )


_TEMPLATE = """\
# keyrotd's configuration, the same file for schedulers, agents and operators. `keyrotd check` lists its every fault and
# shows what it promises. A path that is not absolute starts from the directory of this file.

runtime_dir = {runtime_dir}  # key files and sealed keys; must be on tmpfs, or keys reach a disk
state_dir = {state_dir}  # what must outlive a boot; never holds a key

[store]
# embedded: is a private Valkey, run by `keyrotd standalone`. Several machines: redis://, rediss:// or unix://, with
# ?password_file=PATH.
url = {url}

[secrets]
verify_key_file = "secrets/verify.key"
signing_key_file = "secrets/signing.key"  # schedulers only
operator_verify_key_file = "secrets/operator-verify.key"  # schedulers only
operator_key_file = "secrets/operator.key"  # operators only

# Nodes that share keys: those with the same certificate and the same client CAs. One section for each such set.
[[ring]]
name = "{ring}"
kek_file = "secrets/{ring}.kek"
rotation_interval = "4h"
ticket_lifetime = "2h"

# One section for each TLS server of this host, for its agent. Two lines in haproxy.cfg go with this one:
#   global:  stats socket /run/haproxy/keyrotd.sock user keyrotd mode 600 level admin
#   bind:    tls-ticket-keys /run/keyrotd/haproxy.keys
# [[server]]
# name = "haproxy"
# ring = "{ring}"
# driver = "haproxy"
# socket = "/run/haproxy/keyrotd.sock"
# key_file = "/run/keyrotd/haproxy.keys"
# probe = "127.0.0.1:443"
"""


def _manifests(ring: str, secrets: dict[str, str]) -> Iterator[str]:
    for name, who, keys in (
        (
            "keyrotd-verify",
            "schedulers and all agents; no secret, but who changes it chooses their leader",
            ("verify.key",),
        ),
        (f"keyrotd-ring-{_label(ring)}", f"schedulers, and the agents of ring {ring}", (f"{ring}.kek",)),
        ("keyrotd-scheduler", "schedulers, nobody else", ("signing.key", "operator-verify.key")),
        (
            "keyrotd-operator",
            "people who may rotate and revoke; keep it out of pods that run daemons",
            ("operator.key",),
        ),
    ):
        data = "".join(f"  {key}: {base64.b64encode(secrets[key].encode()).decode()}\n" for key in keys)
        yield f"# For {who}.\n{_MANIFEST.format(name=name, data=data)}".rstrip("\n")


def _label(ring: str) -> str:
    """Return what Kubernetes takes as part of a name; the charts do the same."""
    return re.sub(r"[^a-z0-9]+", "-", ring).strip("-")


_MANIFEST = """\
apiVersion: v1
kind: Secret
metadata:
  name: {name}
  labels:
    app.kubernetes.io/name: keyrotd
type: Opaque
data:
{data}"""


def _advice(ring: str, url: str) -> str:
    return f"""\
These keys exist nowhere else: what you do not apply or keep is gone.
values for the charts keyrotd and keyrotd-sidecar, which find these Secrets by their names:
    config:
      store:
        url: {json.dumps(url)}
      ring:
        - name: {ring}"""
