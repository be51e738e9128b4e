{{/* A process that stays: its Deployment, its disruption budget and its network policy. Takes what _container.tpl says. */}}
{{- define "antiphon.process" -}}
{{- $image := include "antiphon.imageOf" . | fromYaml -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "antiphon.name" . }}
  labels: {{- include "antiphon.labels" . | nindent 4 }}
spec:
  {{- if not .values.scaling }}
  replicas: {{ .values.replicas }}
  {{- end }}
  revisionHistoryLimit: 3
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: 0
      maxSurge: 1
  selector:
    matchLabels: {{- include "antiphon.selectorLabels" . | nindent 6 }}
  template:
    metadata: {{- include "antiphon.podMetadata" . | nindent 6 }}
    spec:
      {{- include "antiphon.podCommon" . | nindent 6 }}
      # As process 1 it would be deaf to SIGTERM until it has said how it handles it.
      shareProcessNamespace: true
      # Its own drain at its longest, and some seconds: after that the kubelet kills it.
      terminationGracePeriodSeconds: {{ add 20 (.graceSeconds | default 0 | ceil) }}
      {{- $own := include "antiphon.selectorLabels" . | fromYaml }}
      {{- $spread := list }}
      {{- range .root.Values.pods.topologySpreadConstraints }}
      {{- $spread = append $spread (merge (dict "labelSelector" (dict "matchLabels" $own) "matchLabelKeys" (list "pod-template-hash")) .) }}
      {{- end }}
      {{- with $spread }}
      topologySpreadConstraints: {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: antiphon
          image: {{ include "antiphon.image" . }}
          imagePullPolicy: {{ $image.pullPolicy }}
          args: {{- toYaml .args | nindent 12 }}
          env: {{- include "antiphon.env" . | nindent 12 }}
          ports:
            - name: pages
              containerPort: {{ .root.Values.pages.port }}
          # The page answers once Python has imported the program.
          startupProbe:
            httpGet: {path: /livez, port: pages}
            periodSeconds: 2
            timeoutSeconds: 8
            failureThreshold: 60
          # The page itself waits 5 s for the event loop, so whoever asks waits longer.
          livenessProbe:
            httpGet: {path: /livez, port: pages}
            periodSeconds: 10
            timeoutSeconds: 8
            failureThreshold: 3
          readinessProbe:
            httpGet: {path: /readyz, port: pages}
            periodSeconds: 5
            timeoutSeconds: 3
            failureThreshold: 2
          securityContext: {{- include "antiphon.containerSecurity" . | nindent 12 }}
          resources: {{- toYaml .values.resources | nindent 12 }}
          volumeMounts: {{- include "antiphon.mounts" . | nindent 12 }}
      volumes: {{- include "antiphon.volumes" . | nindent 8 }}
---
# One at a time, whatever there are: a budget that keeps the last one would keep a node from being drained.
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "antiphon.name" . }}
  labels: {{- include "antiphon.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  # While the servers are away nobody is ready, and nodes can be drained all the same.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "antiphon.selectorLabels" . | nindent 6 }}
{{- if .root.Values.networkPolicy.enabled }}
---
{{ include "antiphon.networkPolicy" . }}
{{- end }}
{{- end }}

{{/* Takes ports and to, as values have them. */}}
{{- define "antiphon.egress" -}}
- ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "antiphon.networkPolicy" -}}
{{- $policy := .root.Values.networkPolicy -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "antiphon.name" . }}
  labels: {{- include "antiphon.labels" . | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  podSelector:
    matchLabels: {{- include "antiphon.selectorLabels" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- if eq .component "setup" }}
  ingress: []
  {{- else }}
  ingress:
    - ports:
        - {port: {{ .root.Values.pages.port }}, protocol: TCP}
      {{- with $policy.pages.from }}
      from: {{- toYaml . | nindent 8 }}
      {{- end }}
  {{- end }}
  egress:
    - ports:
        - {port: 53, protocol: UDP}
        - {port: 53, protocol: TCP}
      {{- with $policy.dns.to }}
      to: {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- include "antiphon.egress" $policy.nats | nindent 4 }}
    {{- if .database }}
    {{- include "antiphon.egress" $policy.databases | nindent 4 }}
    {{- end }}
    {{- if and .root.Values.otlp.endpoint (or .otlp .root.Values.otlp.metrics) (ne .component "setup") }}
    {{- include "antiphon.egress" $policy.otlp | nindent 4 }}
    {{- end }}
    {{- with .values.egress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
