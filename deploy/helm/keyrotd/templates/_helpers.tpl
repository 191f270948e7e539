{{- define "keyrotd.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end }}
{{- end }}

{{- define "keyrotd.selector" -}}
app.kubernetes.io/name: keyrotd
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "keyrotd.labels" -}}
{{ include "keyrotd.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{/* What the ConfigMap says, as JSON: one file for both roles. */}}
{{- define "keyrotd.fleet" -}}
{{- $keys := dict "verify_key_file" "secrets/verify.key" "signing_key_file" "secrets/signing.key" "operator_verify_key_file" "secrets/operator-verify.key" }}
{{- include "keyrotd.config" (dict "config" .Values.config "runtimeDir" .Values.agent.runtimeDir "stateDir" .Values.agent.stateDir "keys" $keys) }}
{{- end }}

{{- define "keyrotd.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "keyrotd.account" -}}
serviceAccountName: {{ include "keyrotd.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}
