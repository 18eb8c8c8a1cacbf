{{- define "onebar.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "onebar.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "onebar.name" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{/* Of all parts, or with `part` of one: dict "root" $ "part" "api" */}}
{{- define "onebar.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .part }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "onebar.labels" -}}
{{ include "onebar.selector" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Values.image.tag | toString | trunc 63 | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* The parts that run, as a list in JSON. */}}
{{- define "onebar.parts" -}}
{{- $parts := list "api" "stream" "generator" }}
{{- if .Values.neighbors.enabled }}{{ $parts = append $parts "neighbors" }}{{ end }}
{{- if (index .Values "map-topic").enabled }}{{ $parts = append $parts "map-topic" }}{{ end }}
{{- $parts | toJson }}
{{- end }}

{{/* Settings of one part, each once: ours, then yours for all, then yours for it. */}}
{{- define "onebar.environment" -}}
{{- $values := .root.Values }}
{{- $part := index $values .part }}
{{- $settings := dict
    "ONEBAR_KAFKA_BOOTSTRAP" (required "kafka.bootstrap: where your Kafka is" $values.kafka.bootstrap)
    "ONEBAR_REDIS_URL" (required "redis.url: where your Redis is" $values.redis.url)
    "ONEBAR_PARTITIONS" $values.kafka.partitions
    "ONEBAR_REPLICATION_FACTOR" $values.kafka.replicationFactor }}
{{- if regexMatch "//[^/@]*:[^/@]+@" $values.redis.url }}
{{- fail "redis.url has a password in it: put it into existingSecret, and name its key in secrets.ONEBAR_REDIS_PASSWORD" }}
{{- end }}
{{- if eq .part "api" }}
{{- $workers := printf "stream=%[1]s-stream:9100,generator=%[1]s-generator:9100" (include "onebar.name" .root) }}
{{- if $values.neighbors.enabled }}
{{- $workers = printf "%s,neighbors=%s-neighbors:9100" $workers (include "onebar.name" .root) }}
{{- end }}
{{- if (index $values "map-topic").enabled }}
{{- $workers = printf "%s,map-topic=%s-map-topic:9100" $workers (include "onebar.name" .root) }}
{{- end }}
{{- $settings = merge $settings (dict
    "ONEBAR_API_HOST" "0.0.0.0"
    "ONEBAR_API_PORT" "8080"
    "ONEBAR_METRICS_TARGETS" $workers) }}
{{- with $part.trustedProxies }}{{ $_ := set $settings "ONEBAR_TRUSTED_PROXIES" . }}{{ end }}
{{- if $part.tls.existingSecret }}
{{- $_ := set $settings "ONEBAR_API_TLS_CERTIFICATE" "/run/tls/tls.crt" }}
{{- $_ := set $settings "ONEBAR_API_TLS_KEY" "/run/tls/tls.key" }}
{{- end }}
{{- else }}
{{- $settings = merge $settings (dict "ONEBAR_METRICS_HOST" "0.0.0.0" "ONEBAR_METRICS_PORT" "9100") }}
{{- end }}
{{- if has .part (list "api" "generator") }}
{{- with $values.models.registry }}{{ $_ := set $settings "ONEBAR_REGISTRY" . }}{{ end }}
{{- with $values.models.checkpoint }}{{ $_ := set $settings "ONEBAR_CHECKPOINT" . }}{{ end }}
{{- end }}
{{- if eq .part "neighbors" }}{{ $_ := set $settings "ONEBAR_EMBEDDER" $part.embedder.path }}{{ end }}
{{- $settings = mergeOverwrite $settings (deepCopy $values.config) (deepCopy $part.config) }}
{{- range $setting, $key := merge (deepCopy $part.secrets) $values.secrets }}
{{- $_ := unset $settings $setting }}
{{- $file := printf "/run/secrets/onebar/%s" $key }}
{{- if regexMatch "_TLS_(CA|CERTIFICATE|KEY|CLIENT_CA)$" $setting }}{{ $_ := set $settings $setting $file }}
{{- else }}{{ $_ := set $settings (printf "%s_FILE" $setting) $file }}{{ end }}
{{- end }}
{{- range $setting, $value := $settings }}
- name: {{ $setting }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}
