{{- define "runlane.labels" -}}
app.kubernetes.io/name: runlane
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "runlane.pod" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
volumes:
  - name: tmp
    emptyDir: {}
{{- end }}

{{- define "runlane.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "runlane.labels" . | nindent 8 }}
{{- end }}

{{- define "runlane.container" -}}
image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag }}"
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
env:
  - name: RUNLANE_DATABASE
    valueFrom:
      secretKeyRef:
        name: {{ .root.Values.database.secretName }}
        key: {{ .root.Values.database.secretKey }}
  {{- if eq .component "worker" }}
  - name: RUNLANE_MAX_CONCURRENT_RUNS
    value: {{ .root.Values.worker.maxConcurrentRuns | quote }}
  {{- end }}
  {{- with .root.Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
