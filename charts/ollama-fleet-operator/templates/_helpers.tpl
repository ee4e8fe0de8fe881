{{- define "ollama-fleet.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The release's name if it already names the chart, else release-chart. */}}
{{- define "ollama-fleet.fullname" -}}
{{- $name := include "ollama-fleet.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "ollama-fleet.selectorLabels" -}}
app.kubernetes.io/name: {{ include "ollama-fleet.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "ollama-fleet.labels" -}}
{{ include "ollama-fleet.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: ollama-fleet-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "ollama-fleet.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "ollama-fleet.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is required when serviceAccount.create is false: name an existing ServiceAccount" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "ollama-fleet.image" -}}
{{- $repository := required "image.repository is required: set it to where your cluster pulls the operator's image from, for example --set image.repository=registry.example.com/ollama-fleet-operator" .Values.image.repository }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* "true" or nothing. Replicas without a leader would poll every host once each, so more than one always elect. */}}
{{- define "ollama-fleet.leaderElection" -}}
{{- range .Values.extraArgs }}
{{- if or (eq . "--leader-elect") (hasPrefix "--leader-elect=" .) }}
{{- fail "leave --leader-elect out of extraArgs: the chart passes it when replicaCount is above 1 or leaderElection.enabled is true" }}
{{- end }}
{{- end }}
{{- if or .Values.leaderElection.enabled (gt (int .Values.replicaCount) 1) }}true{{ end }}
{{- end }}
