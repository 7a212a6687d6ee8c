{{- define "flywheel.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "flywheel.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "flywheel.labels" -}}
{{ include "flywheel.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "flywheel.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (include "flywheel.name" .) }}
{{- end }}

{{- define "flywheel.image" -}}
{{ .Values.image.repository }}{{ if hasPrefix "sha256:" .Values.image.tag }}@{{ else }}:{{ end }}{{ .Values.image.tag }}
{{- end }}

{{- /* What the operator may do where it works. Nothing is written that it doesn't make itself. */ -}}
{{- define "flywheel.rules" -}}
# Its own kinds. Children of laps are made, changed and removed; people's objects are only read.
- apiGroups: [modelflywheel.dev]
  resources: [flywheels]
  verbs: [get, list, watch]
- apiGroups: [modelflywheel.dev]
  resources: [generations, trainingruns, rewardmodels, rollouts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [modelflywheel.dev]
  resources: [flywheels/status, generations/status, trainingruns/status, rewardmodels/status, rollouts/status]
  verbs: [update]
# What it makes and watches: trainer Jobs and frozen arms (which it also removes), arms, routers, collectors, routes.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
# Where JobSet is installed: runs with backend JobSet.
- apiGroups: [jobset.x-k8s.io]
  resources: [jobsets]
  verbs: [get, list, watch, create, patch, delete]
# Where Kueue is installed: why a queued run waits.
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# Parts of what serves: watched (their metadata alone) so that what is deleted or changed by hand is restored. The garbage collector removes them.
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
# The router's agent gets a Role of its own. Kubernetes lets nobody grant what he doesn't hold: hence endpointslices.
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
{{- end }}
