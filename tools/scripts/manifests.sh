#!/usr/bin/env bash
# dist/install.yaml: the chart, rendered for those who do not use Helm, and applied once to the local control plane.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

namespace=ollama-fleet
image=${IMAGE:-registry.example.com/ollama-fleet-operator:0.1.0}
name=${image%@*}
tag=
# A colon after the last slash begins a tag; before it, a port.
if [[ ${name##*/} == *:* ]]; then
	tag=${name##*:}
	name=${name%:*}
fi
digest=
[[ $image == *@* ]] && digest=${image#*@}

mkdir -p dist
{
	cat <<-END
		# Ollama Fleet Operator with its CustomResourceDefinitions, in the namespace $namespace.
		# kubectl apply --server-side -f install.yaml
		apiVersion: v1
		kind: Namespace
		metadata:
		  name: $namespace
		  labels:
		    pod-security.kubernetes.io/enforce: restricted
	END
	env -u KUBECONFIG "$bin/helm" template ollama-fleet-operator charts/ollama-fleet-operator --namespace "$namespace" \
		--set "image.repository=$name" --set-string "image.tag=$tag" --set-string "image.digest=$digest"
} >dist/install.yaml.new
mv dist/install.yaml.new dist/install.yaml

work=$(mktemp -d)
"$bin/control-plane" serve --data-dir "$work/data" >"$work/ready" &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" || true; rm -rf "$work"' EXIT
for _ in {1..300}; do
	grep -q ready "$work/ready" && break
	kill -0 "$server" 2>/dev/null || die "the control plane does not start"
	sleep 0.1
done
export KUBECONFIG=$work/data/kubeconfig KUBECACHEDIR=$work/cache
# Twice: installing again is how it is upgraded.
for _ in 1 2; do
	"$bin/control-plane" kubectl apply --server-side --validate=strict -f dist/install.yaml >"$work/applied"
done
say "dist/install.yaml: $(wc -l <"$work/applied") objects for $image, accepted by a control plane"
