{{- define "sealift.labels" -}}
app.kubernetes.io/name: sealift
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "sealift.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- /* The files of a home that the service cannot do without. It reads no others, and ca.key is not among them. */}}
{{- define "sealift.homeFiles" -}}
{{- if not .masterKey }}master.key {{ end -}}
license.key license.pub token.key token.pub log.key log.pub ca.pem tls.pem tls.key
{{- end }}

{{- define "sealift.settings" -}}
{{- $database := .database.url }}
{{- if .database.authority }}
{{- $joint := contains "?" $database | ternary "&" "?" }}
{{- $database = printf "%s%ssslrootcert=/etc/sealift/database-authority/ca.crt" $database $joint }}
{{- end -}}
[service]
listen = "0.0.0.0:{{ .port }}"
url = {{ .url | toJson }}
database = {{ $database | toJson }}
{{- with .masterKey }}
master_key = {{ . | toJson }}
{{- end }}
{{- with .settings }}

{{ . | trim }}
{{- end }}
{{- end }}
