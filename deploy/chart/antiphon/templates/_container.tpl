{{/*
What containers and pods of all processes have. All take one dict:
  root        the chart's own scope
  component   coordinator, participant-inventory, exporter, readmodel or setup
  values      the process' values
  args        its arguments
  database    {secret, key}, or nothing
  databaseVariable  DATABASE_URL or ANTIPHON_READMODEL
  otlp        whether it sends traces
  graceSeconds  for participants
*/}}
{{- define "antiphon.env" -}}
{{- $v := .root.Values -}}
- name: NATS_URL
  value: {{ $v.nats.url | quote }}
- name: NATS_USER
  valueFrom:
    secretKeyRef:
      name: {{ .values.rights.secret }}
      key: NATS_USER
{{- $proof := .values.rights.proof | default "password" }}
{{- if eq $proof "password" }}
- name: NATS_PASSWORD_FILE
  value: /run/antiphon/rights/NATS_PASSWORD
{{- else }}
- name: NATS_{{ upper $proof }}
  value: /run/antiphon/rights/NATS_{{ upper $proof }}
{{- end }}
{{- with $v.nats.tls }}
{{- if .secret }}
- name: NATS_CA
  value: /run/antiphon/tls/{{ .ca }}
{{- if .showsCertificate }}
- name: NATS_CERT
  value: /run/antiphon/tls/{{ .cert }}
- name: NATS_KEY
  value: /run/antiphon/tls/{{ .key }}
{{- end }}
{{- end }}
{{- end }}
{{- with .database }}
- name: {{ $.databaseVariable }}_FILE
  value: /run/antiphon/database/{{ .key | default "url" }}
{{- end }}
{{- if ne .component "setup" }}
- name: ANTIPHON_HTTP
  value: {{ printf "%s:%v" $v.pages.host $v.pages.port | quote }}
- name: ANTIPHON_PROGRAM_VERSION
  value: {{ include "antiphon.programVersion" . | quote }}
{{- end }}
{{- with $v.jaegerUrl }}
- name: ANTIPHON_JAEGER_URL
  value: {{ . | quote }}
{{- end }}
{{- if not (kindIs "invalid" .graceSeconds) }}
- name: ANTIPHON_GRACE_SECONDS
  value: {{ .graceSeconds | quote }}
{{- end }}
{{- if and $v.otlp.endpoint (or .otlp $v.otlp.metrics) (ne .component "setup") }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ $v.otlp.endpoint | quote }}
- name: OTEL_METRICS_EXPORTER
  value: {{ $v.otlp.metrics | ternary "otlp" "none" }}
{{- end }}
{{- if ne .component "setup" }}
{{- range $name, $value := mergeOverwrite (deepCopy $v.settings) (.values.settings | default dict) }}
- name: {{ $name }}
  value: {{ (kindIs "string" $value) | ternary $value (toJson $value) | quote }}
{{- end }}
{{- end }}
{{- range $name, $value := mergeOverwrite (deepCopy $v.environment) (.values.environment | default dict) }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- range $name, $from := mergeOverwrite (deepCopy $v.secretEnvironment) (.values.secretEnvironment | default dict) }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $from.secret }}
      key: {{ $from.key }}
{{- end }}
{{- end }}

{{- define "antiphon.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The image's user, by number; the group also owns what is mounted. */}}
{{- define "antiphon.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "antiphon.mounts" -}}
- name: tmp
  mountPath: /tmp
- name: rights
  mountPath: /run/antiphon/rights
  readOnly: true
{{- if .root.Values.nats.tls.secret }}
- name: tls
  mountPath: /run/antiphon/tls
  readOnly: true
{{- end }}
{{- if .database }}
- name: database
  mountPath: /run/antiphon/database
  readOnly: true
{{- end }}
{{- with .values.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Of each Secret no more than what the process reads. */}}
{{- define "antiphon.volumes" -}}
{{- $proof := printf "NATS_%s" (.values.rights.proof | default "password" | upper) -}}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
- name: rights
  secret:
    secretName: {{ .values.rights.secret }}
    defaultMode: 0440
    items:
      - key: {{ $proof }}
        path: {{ $proof }}
{{- with .root.Values.nats.tls }}
{{- if .secret }}
- name: tls
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    items:
      - key: {{ .ca }}
        path: {{ .ca }}
      {{- if .showsCertificate }}
      - key: {{ .cert }}
        path: {{ .cert }}
      - key: {{ .key }}
        path: {{ .key }}
      {{- end }}
{{- end }}
{{- end }}
{{- with .database }}
- name: database
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    items:
      - key: {{ .key | default "url" }}
        path: {{ .key | default "url" }}
{{- end }}
{{- with .values.volumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What a pod has besides containers and volumes. */}}
{{- define "antiphon.podCommon" -}}
{{- $pods := .root.Values.pods -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $pods.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $pods.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $pods.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pods.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- include "antiphon.podSecurity" . | nindent 2 }}
{{- end }}

{{- define "antiphon.podMetadata" -}}
labels:
  {{- include "antiphon.labels" . | nindent 2 }}
  {{- with .root.Values.pods.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .root.Values.pods.annotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
