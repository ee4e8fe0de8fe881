{{/* What the operator does with namespaced objects: reads its own kinds, writes their status, tells Events. */}}
{{- define "ollama-fleet.fleetRules" -}}
- apiGroups: [ollama-fleet.io]
  resources: [ollamaservers, fleetplugins]
  verbs: [get, list, watch]
- apiGroups: [ollama-fleet.io]
  resources: [ollamaservers/status, fleetplugins/status]
  verbs: [patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* The operator, as the subject of a binding. */}}
{{- define "ollama-fleet.subjects" -}}
- kind: ServiceAccount
  name: {{ include "ollama-fleet.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{/* The namespaces whose Secrets may be used, as a JSON list: unset is the release's own. */}}
{{- define "ollama-fleet.secretNamespaces" -}}
{{- if kindIs "slice" .Values.secretNamespaces }}
{{- toJson .Values.secretNamespaces }}
{{- else }}
{{- toJson (list .Release.Namespace) }}
{{- end }}
{{- end }}
