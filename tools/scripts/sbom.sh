#!/usr/bin/env bash
# dist/sbom.cdx.json: what the shipped binaries are made of, as CycloneDX. They and the chart are all that ships; the
# control plane, in Go, and fleetsim are tools of this repository and not in it.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cyclonedx_version=0.5.9

if [[ $("$bin/cargo-cyclonedx" cyclonedx --version 2>/dev/null) != *" $cyclonedx_version" ]]; then
	say "installing cargo-cyclonedx $cyclonedx_version: about 5 minutes on two cores"
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	cargo install --quiet --locked --root "$work" "cargo-cyclonedx@$cyclonedx_version"
	mv -f "$work/bin/cargo-cyclonedx" "$bin/cargo-cyclonedx"
fi

target=${SBOM_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
mkdir -p dist
# It writes beside each manifest of the workspace.
name=sbom-of-this-run
trap 'rm -f "$name.json" "tools/fleetsim/$name.json"' EXIT
"$bin/cargo-cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 --target "$target" --override-filename "$name"
python3 tools/scripts/sbom_check.py "$name.json" "$target" dist/sbom.cdx.json
