{{/*
For a pod that serves TLS. Each takes the root context; docs/kubernetes.md shows where each goes.
  keyrotd-sidecar.configMap            a manifest
  keyrotd-sidecar.labels, .annotations of the pod
  keyrotd-sidecar.podSecurityContext   of the pod; the server reads its keys by this group
  keyrotd-sidecar.initContainer        one of initContainers
  keyrotd-sidecar.volumes              some of volumes
  keyrotd-sidecar.volumeMounts         of the server's container
*/}}

{{- define "keyrotd-sidecar.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "keyrotd-sidecar.name" . }}
  labels:
    app.kubernetes.io/name: {{ .Chart.Name }}
    app.kubernetes.io/instance: {{ .Release.Name }}
    app.kubernetes.io/component: keyrotd
    app.kubernetes.io/managed-by: {{ .Release.Service }}
data:
  keyrotd.toml: |
    {{- include "keyrotd.toml" (include "keyrotd-sidecar.config" . | fromJson) | trim | nindent 4 }}
{{- end }}

{{- define "keyrotd-sidecar.labels" -}}
keyrotd-agent: sidecar
{{- end }}

{{- define "keyrotd-sidecar.annotations" -}}
checksum/keyrotd-restarts: {{ include "keyrotd.agent.restarts" (include "keyrotd-sidecar.config" . | fromJson) | sha256sum }}
{{- end }}

{{- define "keyrotd-sidecar.podSecurityContext" -}}
{{ include "keyrotd.podSecurityContext" . }}
{{- end }}

{{- define "keyrotd-sidecar.initContainer" -}}
{{- $values := index .Values "keyrotd-sidecar" }}
{{- $config := include "keyrotd-sidecar.config" . | fromJson }}
name: keyrotd
image: {{ include "keyrotd.image" (dict "image" $values.image "version" (index .Subcharts "keyrotd-sidecar").Chart.AppVersion) }}
imagePullPolicy: {{ $values.image.pullPolicy }}
restartPolicy: Always # it begins before the server and ends after it
args: [agent]
env:
  - {name: KEYROTD_CONFIG, value: /etc/keyrotd/keyrotd.toml}
ports:
  - {name: keyrotd-metrics, containerPort: {{ include "keyrotd.port" $config.agent.listen }}}
startupProbe:
  {{- include "keyrotd.agent.startupProbe" $config | nindent 2 }}
livenessProbe:
  httpGet: {path: /livez, port: keyrotd-metrics}
  periodSeconds: 10
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /readyz, port: keyrotd-metrics}
  periodSeconds: 5
  timeoutSeconds: 5
resources:
  {{- toYaml $values.resources | nindent 2 }}
securityContext:
  {{- include "keyrotd.securityContext" . | nindent 2 }}
volumeMounts:
  - {name: keyrotd-files, mountPath: /etc/keyrotd, readOnly: true}
  - {name: keyrotd-runtime, mountPath: /run/keyrotd}
  - {name: keyrotd-state, mountPath: /var/lib/keyrotd}
  - {name: keyrotd-keys, mountPath: /run/keyrotd-keys}
  - {name: keyrotd-control, mountPath: /run/keyrotd-control}
  {{- if $values.secrets.store }}
  - {name: keyrotd-store, mountPath: /etc/keyrotd-store, readOnly: true}
  {{- end }}
{{- end }}

{{- define "keyrotd-sidecar.volumes" -}}
{{- $values := index .Values "keyrotd-sidecar" }}
{{- $rings := (include "keyrotd.agent.rings" $values.config | fromJson).names }}
- name: keyrotd-files
  {{- include "keyrotd.files" (dict "configMap" (include "keyrotd-sidecar.name" .) "secrets" $values.secrets "rings" $rings "scheduler" false) | nindent 2 }}
# What the agent accepted, sealed: a container that restarts goes on from it.
- name: keyrotd-runtime
  emptyDir: {medium: Memory, sizeLimit: 4Mi}
# Floor and barrier, no key: on the node's disk, so that they outlive its reboot as the pod does.
- name: keyrotd-state
  emptyDir: {sizeLimit: 4Mi}
- name: keyrotd-keys
  emptyDir: {medium: Memory, sizeLimit: 4Mi}
- name: keyrotd-control
  emptyDir: {medium: Memory, sizeLimit: 4Mi}
{{- with $values.secrets.store }}
- name: keyrotd-store
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{- define "keyrotd-sidecar.volumeMounts" -}}
- {name: keyrotd-keys, mountPath: /run/keyrotd-keys, readOnly: true}
- {name: keyrotd-control, mountPath: /run/keyrotd-control}
{{- end }}

{{- define "keyrotd-sidecar.name" -}}
{{ .Release.Name }}-keyrotd-sidecar
{{- end }}

{{/* As JSON. What the server could not see is refused here rather than at three in the morning. */}}
{{- define "keyrotd-sidecar.config" -}}
{{- $values := index .Values "keyrotd-sidecar" }}
{{- range $values.config.server }}
{{- $name := .name }}
{{- range kindIs "slice" .key_file | ternary .key_file (list .key_file) }}
{{- if not (regexMatch "^/run/keyrotd-keys/[^/]+/[^/]+$" .) }}
{{- fail (printf "keyrotd-sidecar: server %s: key_file %s is in no folder below /run/keyrotd-keys, which the server's container mounts" $name .) }}
{{- end }}
{{- end }}
{{- end }}
{{- $keys := dict "verify_key_file" "secrets/verify.key" }}
{{- include "keyrotd.config" (dict "config" $values.config "runtimeDir" "/run/keyrotd" "stateDir" "/var/lib/keyrotd" "keys" $keys) }}
{{- end }}
