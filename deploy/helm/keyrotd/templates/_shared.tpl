{{/* What the charts keyrotd and keyrotd-sidecar have in common: this file is in both, the same to the byte. */}}

{{/* keyrotd.toml of a map. JSON's way to write text, whole numbers and lists is TOML's. */}}
{{- define "keyrotd.toml" -}}
{{- range $key, $value := . }}
{{- if kindIs "string" $value }}
{{- printf "%s = %s\n" $key (toJson $value) }}
{{- end }}
{{- end }}
{{- range $name, $section := . }}
{{- if kindIs "map" $section }}
{{- printf "\n[%s]\n" $name }}
{{- include "keyrotd.toml.keys" $section }}
{{- else if kindIs "slice" $section }}
{{- range $section }}
{{- printf "\n[[%s]]\n" $name }}
{{- include "keyrotd.toml.keys" . }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "keyrotd.toml.keys" -}}
{{- range $key, $value := . }}
{{- printf "%s = %s\n" $key (toJson $value) }}
{{- end }}
{{- end }}

{{/* The configuration that values ask for, and the paths that only the charts know; as JSON. The daemon makes its own
     folders inside of volumes, whose roots are open to all. */}}
{{- define "keyrotd.config" -}}
{{- $config := deepCopy .config }}
{{- $_ := set $config "runtime_dir" (printf "%s/daemon" .runtimeDir) }}
{{- $_ := set $config "state_dir" (printf "%s/daemon" .stateDir) }}
{{- $_ := set $config "secrets" .keys }}
{{- range $config.ring }}
{{- $_ := set . "kek_file" (printf "secrets/%s.kek" .name) }}
{{- end }}
{{- range $config.server }}
{{- $_ := set . "mode" (.mode | default "0640") }}
{{- $_ := set . "group" (.group | default "65532") }}
{{- end }}
{{- toJson $config }}
{{- end }}

{{/* What takes effect only in a new pod; a reload takes everything else, by itself, when the mounted file changes. */}}
{{- define "keyrotd.restarts" -}}
{{- $rings := list }}
{{- range .ring }}
{{- $rings = append $rings .name }}
{{- end }}
{{- toJson (dict "store" .store "rings" (sortAlpha $rings)) }}
{{- end }}

{{- define "keyrotd.agent.restarts" -}}
{{- printf "%s %s %s" (include "keyrotd.restarts" .) (toJson .agent) (toJson .server) }}
{{- end }}

{{- define "keyrotd.image" -}}
{{- if .image.digest }}
{{- printf "%s@%s" .image.repository .image.digest }}
{{- else }}
{{- printf "%s:%s" .image.repository (.image.tag | default .version) }}
{{- end }}
{{- end }}

{{- define "keyrotd.port" -}}
{{- regexFind "[0-9]+$" . }}
{{- end }}

{{- define "keyrotd.securityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
runAsGroup: 65532
runAsNonRoot: true
runAsUser: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Pods that hold keys: the daemon's user reads what root mounts by its group, and no other user does. */}}
{{- define "keyrotd.podSecurityContext" -}}
fsGroup: 65532
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* /etc/keyrotd: the configuration and these Secrets side by side, as `keyrotd init DIR` writes them. One volume, so
     that the kubelet turns all of it at once. */}}
{{- define "keyrotd.files" -}}
projected:
  defaultMode: 0440
  sources:
    - configMap:
        name: {{ .configMap }}
        items: [{key: keyrotd.toml, path: keyrotd.toml}]
    - secret:
        name: {{ .secrets.verify }}
        items: [{key: verify.key, path: secrets/verify.key}]
    {{- range $ring := .rings }}
    - secret:
        name: {{ include "keyrotd.ringSecret" (dict "ring" $ring "secrets" $.secrets) }}
        items: [{key: {{ $ring }}.kek, path: secrets/{{ $ring }}.kek}]
    {{- end }}
    {{- if .scheduler }}
    - secret:
        name: {{ .secrets.scheduler }}
        items:
          - {key: signing.key, path: secrets/signing.key}
          - {key: operator-verify.key, path: secrets/operator-verify.key}
    {{- end }}
{{- end }}

{{- define "keyrotd.ringSecret" -}}
{{- $label := regexReplaceAll "[^a-z0-9]+" .ring "-" | trimAll "-" }}
{{- get .secrets.ring .ring | default (printf "keyrotd-ring-%s" $label) }}
{{- end }}

{{/* The rings of an agent's servers: it gets no other ring's key; as JSON. */}}
{{- define "keyrotd.agent.rings" -}}
{{- $rings := list }}
{{- range .server }}
{{- $rings = append $rings .ring }}
{{- end }}
{{- dict "names" (uniq $rings) | toJson }}
{{- end }}

{{/* Succeeds once every server finds the key files that it does not start without. No shell: images need none. */}}
{{- define "keyrotd.agent.startupProbe" -}}
exec:
  command:
    - python3
    - -ISc
    - "import os, sys; sys.exit(not all(map(os.path.getsize, sys.argv[1:])))"
    {{- range .server }}
    {{- range kindIs "slice" .key_file | ternary .key_file (list .key_file) }}
    - {{ . | replace "{n}" "0" | quote }}
    {{- end }}
    {{- end }}
periodSeconds: 1
timeoutSeconds: 5
failureThreshold: 120
{{- end }}
