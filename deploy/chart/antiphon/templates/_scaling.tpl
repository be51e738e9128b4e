{{/* KEDA's view of a participant: the lag of each consumer that brings it work. Takes what _container.tpl says. */}}
{{- define "antiphon.scaling" -}}
{{- $name := .values.name -}}
{{- $keda := .root.Values.keda -}}
{{- $scaling := mergeOverwrite (dict "min" 1 "lag" 16 "pollingSeconds" 5 "cooldownSeconds" 300 "startSeconds" 30) .values.scaling -}}
{{- if gt (int $scaling.min) (int $scaling.max) -}}
{{- fail (printf "participant %s: scaling.min is %v, and more than scaling.max, which is %v." $name $scaling.min $scaling.max) -}}
{{- end -}}
{{- if and (eq (int $scaling.min) 0) (ne (toString $scaling.stepTimeoutSeconds) "none") -}}
{{- $needed := addf $scaling.pollingSeconds $scaling.startSeconds 4 -}}
{{- if lt (float64 $scaling.stepTimeoutSeconds) $needed -}}
{{- fail (printf "participant %s: from zero a command is begun with after %v s (pollingSeconds + startSeconds + 4), and a step gives up after %v s (stepTimeoutSeconds). Let scaling.min be 1, or give the step a longer time." $name $needed $scaling.stepTimeoutSeconds) -}}
{{- end -}}
{{- end -}}
{{- $consumers := list (list "SAGA" $name) (list "SAGA" (printf "%s-undo" $name)) (list "SAGA" (printf "%s-close" $name)) -}}
{{- if .values.reacts -}}
{{- $consumers = append $consumers (list "EVENTS" (printf "%s-on" $name)) -}}
{{- end -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ include "antiphon.name" . }}
  labels: {{- include "antiphon.labels" . | nindent 4 }}
spec:
  scaleTargetRef:
    name: {{ include "antiphon.name" . }}
  minReplicaCount: {{ $scaling.min }}
  maxReplicaCount: {{ $scaling.max }}
  pollingInterval: {{ $scaling.pollingSeconds }}
  cooldownPeriod: {{ $scaling.cooldownSeconds }}
  # While the servers' monitoring cannot be reached nobody knows the lag, and so one at least works.
  fallback:
    failureThreshold: 3
    replicas: {{ max 1 (int $scaling.min) }}
  triggers:
    {{- range $consumers }}
    - type: nats-jetstream
      metadata:
        natsServerMonitoringEndpoint: {{ $keda.monitoring | quote }}
        useHttps: {{ $keda.https | quote }}
        account: {{ $keda.account | quote }}
        stream: {{ index . 0 | quote }}
        consumer: {{ index . 1 | quote }}
        lagThreshold: {{ $scaling.lag | quote }}
        activationLagThreshold: "0"
    {{- end }}
{{- end }}
