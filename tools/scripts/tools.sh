#!/usr/bin/env bash
# Installs what the machine lacks into the cache: the control plane, built when its sources change, and Helm.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

helm_version=v4.3.1

command -v go >/dev/null || die "Go is not installed; version 1.26 or newer is needed for the control plane and Helm"

wanted="$(find tools/control-plane -maxdepth 1 -type f | hash_files) $(go env GOVERSION)"
if [[ ! -x $bin/control-plane || $(cat "$bin/control-plane.built-from" 2>/dev/null) != "$wanted" ]]; then
	say "building the control plane: about 6 minutes on two cores the first time, seconds afterwards"
	# Beside the old one, then in its place: a running control plane keeps its file.
	new=$bin/control-plane.new.$$
	trap 'rm -f "$new"' EXIT
	tools/control-plane/build.sh "$new"
	mv -f "$new" "$bin/control-plane"
	printf '%s\n' "$wanted" >"$bin/control-plane.built-from"
fi

# Installed by Go, Helm does not tell its patch version; its build information does.
if [[ ! -x $bin/helm ]] || ! go version -m "$bin/helm" | grep -q "helm.sh/helm/v4[[:space:]]$helm_version[[:space:]]"; then
	say "installing Helm $helm_version: about 3 minutes on two cores"
	GOBIN=$bin go install "helm.sh/helm/v4/cmd/helm@$helm_version"
fi

mkdir -p target/tools
ln -sfn "$bin/control-plane" target/tools/control-plane
ln -sfn "$bin/control-plane" target/tools/kubectl
ln -sfn "$bin/helm" target/tools/helm
