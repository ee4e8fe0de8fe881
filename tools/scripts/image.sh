#!/usr/bin/env bash
# The image $IMAGE, by whichever container engine is there.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

IMAGE=${IMAGE:-registry.example.com/ollama-fleet-operator:0.1.0}
engine=
idle=
for candidate in docker podman buildah; do
	command -v "$candidate" >/dev/null || continue
	# A client without its daemon is no engine.
	if "$candidate" info >/dev/null 2>&1; then
		engine=$candidate
		break
	fi
	idle="${idle:+$idle, }$candidate"
done
if [[ -z $engine ]]; then
	die "no container engine: ${idle:+$idle is installed but does not run; }start docker, or install podman or buildah. \`make release\` builds the binary without one"
fi

tools/scripts/release.sh
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
say "building $IMAGE with $engine"
"$engine" build --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --tag "$IMAGE" .
say "built $IMAGE; push it with: $engine push $IMAGE"
