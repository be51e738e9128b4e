{{/* The name of a process' objects. Takes root and component. */}}
{{- define "antiphon.name" -}}
{{ printf "%s-%s" .root.Release.Name .component | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* inventory_eu is inventory-eu where Kubernetes wants a name of its own form. */}}
{{- define "antiphon.participantComponent" -}}
participant-{{ . | lower | replace "_" "-" | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "antiphon.selectorLabels" -}}
app.kubernetes.io/name: antiphon
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "antiphon.labels" -}}
{{ include "antiphon.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: antiphon
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* An image out of the general one and what a process has in its place; the general digest is of no other image.
     Takes root and values. */}}
{{- define "antiphon.imageOf" -}}
{{- $own := .values.image | default dict -}}
{{- $general := deepCopy .root.Values.image -}}
{{- if or $own.repository $own.tag -}}
{{- $general = omit $general "digest" -}}
{{- end -}}
{{- mergeOverwrite $general $own | toYaml -}}
{{- end }}

{{- define "antiphon.image" -}}
{{- $image := include "antiphon.imageOf" . | fromYaml -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $image.repository $image.digest | quote }}
{{- else -}}
{{ printf "%s:%s" $image.repository ($image.tag | default .root.Chart.AppVersion) | quote }}
{{- end }}
{{- end }}

{{- define "antiphon.programVersion" -}}
{{- $image := include "antiphon.imageOf" . | fromYaml -}}
{{- $image.tag | default $image.digest | default .root.Chart.AppVersion -}}
{{- end }}
