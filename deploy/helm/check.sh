#!/bin/sh
# Renders the chart with several sets of values and holds it to Kubernetes' schemas, of the oldest
# version that the chart names and of the newest. helm is taken from PATH, else built by Go into
# .cache/bin (minutes); the schemas come with kubernetes-validate.
set -eu
cd "$(dirname "$0")/../.."
bin=$PWD/.cache/bin
PATH=$PATH:$bin
command -v helm >/dev/null || GOBIN=$bin go install helm.sh/helm/v3/cmd/helm@latest
validate="${VENV:-.venv}/bin/python -m uv tool run -q kubernetes-validate --strict --quiet"
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT

chart=deploy/helm/onebar
newest=1.37
for values in deploy/helm/cases/*.yaml; do
    for version in 1.27 $newest; do
        helm lint --quiet --strict --kube-version "$version" "$chart" -f "$values"
        helm template onebar "$chart" --kube-version "$version" -f "$values" >"$rendered/all.yaml"
        # Of a kind that Kubernetes itself does not have (PodMonitor) it warns that there is no schema.
        $validate -k "$version" "$rendered/all.yaml"
        echo "$values: valid in Kubernetes $version"
    done
done
for values in deploy/helm/cases/refused/*.yaml; do
    wanted=$(sed -n 's/^# refused: //p' "$values")
    if said=$(helm template onebar "$chart" --kube-version "$newest" -f "$values" 2>&1); then
        echo "$values: rendered, and should be refused" >&2
        exit 1
    fi
    case $said in
        *"$wanted"*) echo "$values: refused" ;;
        *) echo "$values: refused, but not with: $wanted" >&2; echo "$said" >&2; exit 1 ;;
    esac
done
