#!/bin/sh
# Renders the chart with several sets of values and holds it to Kubernetes' schemas. helm and
# kubeconform are taken from PATH, else built by Go into .cache/bin.
set -eu
cd "$(dirname "$0")/../.."
bin=$PWD/.cache/bin
PATH=$PATH:$bin
command -v helm >/dev/null || GOBIN=$bin go install helm.sh/helm/v3/cmd/helm@latest
command -v kubeconform >/dev/null || GOBIN=$bin go install github.com/yannh/kubeconform/cmd/kubeconform@latest

chart=deploy/helm/onebar
for values in deploy/helm/cases/*.yaml; do
    echo "$values"
    helm lint --quiet --strict "$chart" -f "$values"
    # A kind that Kubernetes itself does not have (PodMonitor) has no schema there.
    helm template onebar "$chart" -f "$values" | kubeconform -strict -summary -ignore-missing-schemas
done
for values in deploy/helm/cases/refused/*.yaml; do
    wanted=$(sed -n 's/^# refused: //p' "$values")
    if said=$(helm template onebar "$chart" -f "$values" 2>&1); then
        echo "$values: rendered, and should be refused" >&2
        exit 1
    fi
    case $said in
        *"$wanted"*) echo "$values: refused" ;;
        *) echo "$values: refused, but not with: $wanted" >&2; echo "$said" >&2; exit 1 ;;
    esac
done
