"""
The part of values.schema.json that is keyrotd.toml in YAML, made of what keyrotd's own reader goes by.

`.venv/bin/python -m tests.helm.schema` writes it into both charts, and their values into the page; tests hold them so.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, assert_never

from keyrotd.config import RING_NAME, SECTIONS
from keyrotd.servers.catalogue import COMMON, DRIVERS, REQUIRED, Field, Type

HELM = Path(__file__).parents[2] / "deploy" / "helm"
PAGE = HELM.parents[1] / "docs" / "kubernetes.md"
SCHEMAS = (HELM / "keyrotd" / "values.schema.json", HELM / "keyrotd-sidecar" / "values.schema.json")

#: The charts settle these: where volumes are mounted, and that each pod has a name of its own.
SETTLED = {"runtime_dir", "state_dir", "secrets", "kek_file", "node"}

_DURATION = r"^(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?$"
#: Kubelet and Prometheus reach a pod by its address; and nobody needs a daemon that cannot be asked.
_LISTEN = r"^(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):[0-9]{1,5}$"


def config_schema() -> dict[str, Any]:
    """JSON Schema of the value `config`."""
    shown = {name: fields for name, fields in SECTIONS.items() if name and name not in SETTLED}
    tables = {name: _table(fields) for name, fields in shown.items()}
    tables["store"]["properties"]["url"] |= {"minLength": 1, "not": {"pattern": "//[^/@]*:[^/@]*@"}}
    tables["ring"]["properties"]["name"]["pattern"] = f"^{RING_NAME.pattern}$"
    for daemon in ("scheduler", "agent"):
        tables[daemon]["properties"]["listen"]["pattern"] = _LISTEN
    rings = {"type": "array", "minItems": 1, "items": tables.pop("ring")}
    servers = {"type": "array", "items": _server()}
    every = dict(sorted({**tables, "ring": rings, "server": servers}.items()))
    says = "keyrotd.toml, in YAML: what config.example.toml says of it"
    return {"description": says, **_closed(every), "required": ["store", "ring"]}


def _closed(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": dict(properties)}


def _table(fields: Mapping[str, Field]) -> dict[str, Any]:
    found = {key: _value(field) for key, field in fields.items() if key not in SETTLED}
    required = [key for key, field in fields.items() if field.default is REQUIRED and key not in SETTLED]
    return {**_closed(found), "required": required}


def _server() -> dict[str, Any]:
    driver = {"enum": list(DRIVERS), "description": "what kind of server it is"}
    cases = []
    for word, entry in DRIVERS.items():
        table = _table({**COMMON, **entry.fields})
        table["properties"]["driver"] = True
        here = {"properties": {"driver": {"const": word}}, "required": ["driver"]}
        cases.append({"if": here, "then": table})
    return {"type": "object", "properties": {"driver": driver}, "required": ["driver"], "allOf": cases}


def _value(field: Field) -> dict[str, Any]:
    return {"description": field.says, **_kind(field)}


def _kind(field: Field) -> dict[str, Any]:
    match field.type:
        case Type.TEXT | Type.PATH:
            return {"type": "string", "minLength": 1}
        case Type.PATHS:
            text = {"type": "string", "minLength": 1}
            return {"oneOf": [text, {"type": "array", "minItems": 1, "items": text}]}
        case Type.WORDS:
            return {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}}
        case Type.DURATION:
            return {"type": "string", "minLength": 2, "pattern": _DURATION}
        case Type.MODE:
            return {"type": "string", "pattern": "^[0-7]{3,5}$"}
        case Type.COUNT:
            return {"type": "integer", "minimum": 0}
        case Type.CHOICE:
            return {"enum": list(field.choices)}
        case _:
            assert_never(field.type)


def leaves(schema: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every value with its path, but for those inside of `config`, which are keyrotd's own."""
    for key, found in schema.get("properties", {}).items():
        path = f"{at}{key}"
        if found.get("additionalProperties") is False and path != "config":
            yield from leaves(found, f"{path}.")
        elif path != "global":
            yield path, found


def with_tables(page: str) -> str:
    """The page with a table of values of each chart, between its two marks."""
    for path in SCHEMAS:
        chart = path.parent.name
        rows = ["| value | default | |", "|---|---|---|"]
        for value, about in leaves(json.loads(path.read_text("utf-8"))):
            default = f"`{json.dumps(about['default'])}`" if "default" in about else "see `values.yaml`"
            rows.append(f"| `{value}` | {default} | {about['description']} |")
        begin, end = f"<!-- values of {chart}: made by tests/helm/schema.py -->\n", "<!-- end -->"
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n" + "\n".join(rows) + f"\n\n{end}" + rest.partition(end)[2]
    return page


def main() -> None:
    for path in SCHEMAS:
        schema = json.loads(path.read_text("utf-8"))
        schema["properties"]["config"] = config_schema()
        path.write_text(json.dumps(schema, indent=2) + "\n", "utf-8")
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
