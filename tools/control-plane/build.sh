#!/bin/sh
# Builds the control-plane binary: build.sh OUT
# The version of Kubernetes comes from go.mod and must be linked in: kubectl and
# other clients refuse a server whose version they cannot parse.
set -eu

out=${1:?usage: build.sh OUT}
mkdir -p "$(dirname "$out")"
out=$(cd "$(dirname "$out")" && pwd)/$(basename "$out")
cd "$(dirname "$0")"

version=$(sed -n 's|^[[:space:]]*k8s\.io/kubernetes \(v[0-9.]*\)$|\1|p' go.mod)
major=$(echo "$version" | cut -d. -f1 | tr -d v)
minor=$(echo "$version" | cut -d. -f2)
package=k8s.io/component-base/version

# Static and stripped, with the tags of the upstream release builds: the first
# lets the linker drop what nothing calls.
CGO_ENABLED=0 exec go build -trimpath -buildvcs=false -tags grpcnotrace,notest \
	-ldflags "-s -w -X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor" \
	-o "$out" .
