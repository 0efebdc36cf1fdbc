#!/usr/bin/env bash
# Fetches and builds what macekit needs and a fresh Debian machine lacks.
#
#   cmake/dependencies.sh COMPONENT...     system | kokkos | kokkos_cuda | lammps | python | peer | wheel
#
# Results live in $MACEKIT_CACHE (default ~/.cache/macekit), one folder per component, named by a hash of its version,
# options, compiler and CPU level. A folder counts only once its `.complete` file exists, so an interrupted build is
# started afresh, never reused. The last line printed for each component is `component=folder`.
set -euo pipefail
cd "$(dirname "$0")"

source ./cache.sh
jobs=${MACEKIT_JOBS:-$(nproc)}
mkdir -p "$cache/logs"

kokkos_version=4.5.1
kokkos_carrier=pycompadre==1.7.6          # its source archive holds unmodified Kokkos 4.5.1
kokkos_sha256=c766ec4d445ce076069be4b8c51a23ffac4ee79ea949ca86446bfd8c299b154c
kokkos_options="-DBUILD_SHARED_LIBS=ON -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_STANDARD=20 -DKokkos_ENABLE_OPENMP=ON -DKokkos_ENABLE_SERIAL=ON"
cuda_arch=${MACEKIT_CUDA_ARCH:-sm_90}
nvcc=${CUDACXX:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
kokkos_cuda_options="-DKokkos_ENABLE_CUDA=ON -DKokkos_ENABLE_COMPILE_AS_CMAKE_LANGUAGE=ON"  # nvcc as CMake's CUDA compiler, so that host code stays with the host's
lammps_version=20250204+dfsg.1-2          # LAMMPS 4Feb2025, from Debian trixie's source archive
# -O2 and few packages, for the time that it takes: next to pair_style mace, LAMMPS's own loops cost nothing.
lammps_options="-DBUILD_SHARED_LIBS=ON -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O2 -DCMAKE_CXX_STANDARD=20 -DBUILD_MPI=ON -DBUILD_OMP=ON \
 -DPKG_KOKKOS=ON -DEXTERNAL_KOKKOS=ON -DPKG_PLUGIN=ON -DFFT=KISS -DFFT_KOKKOS=KISS -DWITH_GZIP=OFF \
 -DWITH_JPEG=OFF -DWITH_PNG=OFF -DWITH_FFMPEG=OFF -DWITH_CURL=OFF -DBUILD_TOOLS=OFF -DLAMMPS_EXCEPTIONS=ON"
system_packages="g++ cmake ninja-build ccache make patch xz-utils openmpi-bin libopenmpi-dev libgtest-dev libgmock-dev libyaml-dev nlohmann-json3-dev zlib1g-dev pybind11-dev python3-venv python3-dev"

say() { printf '%s\n' "$*" >&2; }
fail() { say "macekit: $*"; exit 1; }

cpu_level() {  # x86-64-v2, v3 (AVX2) or v4 (AVX-512); the bare machine name elsewhere
  local flags; flags=$(grep -m1 '^flags' /proc/cpuinfo 2>/dev/null || true)
  case "$flags" in *avx512f*) echo x86-64-v4 ;; *avx2*) echo x86-64-v3 ;; *) uname -m ;; esac
}
key() { printf '%s\n' "$@" "$(${CXX:-c++} -dumpfullversion 2>/dev/null || true)" "$(cpu_level)" | sha256sum | cut -c1-12; }

# install NAME KEY FUNCTION: runs FUNCTION FOLDER once; a second process waits for the first.
install() {
  local name=$1 folder="$cache/$1-$2" function=$3 log="$cache/logs/$1-$2.log"
  exec 9>"$cache/.lock-$name"; flock 9
  if [ ! -e "$folder/.complete" ]; then
    rm -rf "$folder"; mkdir -p "$folder"
    say "macekit: preparing $name (once; log: $log)"
    local start=$SECONDS
    ( set -euo pipefail; "$function" "$folder" ) >"$log" 2>&1 9>&- &
    local job=$!
    while kill -0 $job 2>/dev/null; do
      if [ -t 2 ]; then printf '\r  %4d s  %.90s\033[K' $((SECONDS - start)) "$(tail -n1 "$log" | tr -d '\r')" >&2; fi
      sleep 1
    done
    if [ -t 2 ]; then printf '\r\033[K' >&2; fi
    if ! wait $job; then tail -n 20 "$log" >&2; fail "preparing $name failed; the whole log is $log"; fi
    touch "$folder/.complete"
    say "macekit: $name ready after $((SECONDS - start)) s"
  fi
  exec 9>&-
  echo "$name=$folder"
}

system() {
  local missing=() package
  for package in $system_packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  say "macekit: installing Debian packages: ${missing[*]}"
  local root=(); [ "$(id -u)" = 0 ] || root=(sudo)
  command -v "${root[0]:-env}" >/dev/null || fail "these Debian packages are missing and there is no sudo: ${missing[*]}. Ask your administrator to install them."
  { "${root[@]}" apt-get update && DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y --no-install-recommends "${missing[@]}"; } \
    >"$cache/logs/apt.log" 2>&1 || { tail -n 20 "$cache/logs/apt.log" >&2; fail "apt-get failed; log: $cache/logs/apt.log"; }
}

unpack_kokkos() {  # FOLDER
  local archive="$cache/kokkos-$kokkos_version.tar.gz"
  if ! echo "$kokkos_sha256  $archive" | sha256sum -c 2>/dev/null; then
    # A pip of our own: Debian's Python has none. It asks the archive for its metadata, with build tools of its own; those may come as wheels.
    python3 -m venv "$1/pip"
    "$1/pip/bin/pip" download --no-deps --no-binary "${kokkos_carrier%%=*}" -d "$1" "$kokkos_carrier"
    mv "$1"/pycompadre-*.tar.gz "$archive"
    echo "$kokkos_sha256  $archive" | sha256sum -c
  fi
  tar -xzf "$archive" -C "$1" --strip-components=1 --wildcards '*/kokkos/*'
}
build_kokkos() {
  local folder=$1 work; work=$(mktemp -d)
  unpack_kokkos "$work"
  cmake -S "$work/kokkos" -B "$work/build" -G Ninja $kokkos_options -DCMAKE_INSTALL_PREFIX="$folder"
  cmake --build "$work/build" -j "$jobs"
  cmake --install "$work/build"
  rm -rf "$work"
}
kokkos() { install kokkos "$(key "$kokkos_version" "$kokkos_options")" build_kokkos; }

# Kokkos 4.5.1 predates CUDA 13, whose runtime changed the arguments of three functions.
build_kokkos_cuda() {
  local folder=$1 work header; work=$(mktemp -d)
  unpack_kokkos "$work"
  header="$work/kokkos/core/src/Cuda/Kokkos_Cuda_Instance.hpp"
  if [ "$(nvcc_version)" -ge 13 ]; then
    sed -i -e 's/cudaGraphAddDependencies(graph, from, to, numDependencies)/cudaGraphAddDependencies(graph, from, to, nullptr, numDependencies)/' \
      -e 's/cudaMemAdvise(devPtr, count, advice, device)/cudaMemAdvise(devPtr, count, advice, cudaMemLocation{cudaMemLocationTypeDevice, device})/' \
      -e 's/cudaMemPrefetchAsync(devPtr, count, dstDevice,/cudaMemPrefetchAsync(devPtr, count, cudaMemLocation{cudaMemLocationTypeDevice, dstDevice}, 0,/' "$header"
  fi
  cmake -S "$work/kokkos" -B "$work/build" -G Ninja $kokkos_options $kokkos_cuda_options $(kokkos_cuda_arch) -DCMAKE_CUDA_COMPILER="$nvcc" -DCMAKE_CUDA_FLAGS=-std=c++20 \
    -DCMAKE_INSTALL_PREFIX="$folder"
  cmake --build "$work/build" -j "$jobs"
  cmake --install "$work/build"
  rm -rf "$work"
}
nvcc_version() { "$nvcc" --version | sed -n 's/.*release \([0-9]*\)\..*/\1/p'; }
kokkos_cuda_arch() {
  case "$cuda_arch" in
    sm_80) echo -DKokkos_ARCH_AMPERE80=ON ;;
    sm_90) echo -DKokkos_ARCH_HOPPER90=ON ;;
    *) fail "MACEKIT_CUDA_ARCH is '$cuda_arch'; known are sm_80 (A100) and sm_90 (H100, H200)." ;;
  esac
}
kokkos_cuda() {
  command -v "$nvcc" >/dev/null || fail "there is no nvcc here; install the CUDA toolkit, or name its compiler in CUDACXX."
  kokkos_cuda_arch >/dev/null
  install kokkos_cuda "$(key "$kokkos_version" "$kokkos_options" "$kokkos_cuda_options" "$cuda_arch" "$("$nvcc" --version | tail -n1)")" build_kokkos_cuda
}

build_lammps() {
  local folder=$1 work; work=$(mktemp -d)
  # An apt of our own: the user's sources stay as they are.
  mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
  local mirror; mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | head -n1 | tr -d ' ' || true)
  echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} trixie main" >"$work/apt/sources.list"
  local options=(-o Dir::Etc::sourcelist="$work/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists="$work/apt/lists" -o APT::Sandbox::User=root -o Dir::Cache="$work/apt/cache")
  apt-get "${options[@]}" update
  (cd "$work" && apt-get "${options[@]}" source --tar-only --download-only "lammps=$lammps_version")
  mkdir -p "$folder/source"
  tar -xJf "$work"/lammps_*.orig.tar.xz -C "$folder/source" --strip-components=1 --exclude='*/examples/*' --exclude='*/bench/*' --exclude='*/doc/src/*' --exclude='*/tools/*' --exclude='*/potentials/*'
  cmake -S "$folder/source/cmake" -B "$work/build" -G Ninja $lammps_options -DCMAKE_PREFIX_PATH="$2" -DCMAKE_INSTALL_PREFIX="$folder" -DCMAKE_INSTALL_RPATH="$folder/lib;$2/lib" -DCMAKE_INSTALL_LIBDIR=lib
  cmake --build "$work/build" -j "$jobs"
  cmake --install "$work/build"
  mkdir -p "$folder/headers" && cp -r "$work"/build/styles "$folder/headers/" 2>/dev/null || true
  rm -rf "$work"
}
lammps() {
  local prefix; prefix=$(kokkos | tail -n1); prefix=${prefix#*=}
  build_lammps_here() { build_lammps "$1" "$prefix"; }
  install lammps "$(key "$lammps_version" "$lammps_options" "$prefix")" build_lammps_here
}

build_python() {
  python3 -m venv "$1"
  "$1/bin/pip" install --disable-pip-version-check --progress-bar off -r "$PWD/requirements.txt"
}
python() { install python "$(key "$(cat requirements.txt)" "$(python3 -VV)")" build_python; }

build_wheel() {  # what makes macekit's wheel, and the LAMMPS wheel that its plugin is for
  python3 -m venv "$1"
  "$1/bin/pip" install --disable-pip-version-check --progress-bar off -r "$PWD/requirements-wheel.txt"
}
wheel() { install wheel "$(key "$(cat requirements-wheel.txt)" "$(python3 -VV)")" build_wheel; }

build_peer() {  # mace-torch for tests and benchmarks: an environment of its own on top of the first, so torch is stored once
  python3 -m venv "$1"
  "$2/bin/python" -c 'import site; print(site.getsitepackages()[0])' >"$("$1/bin/python" -c 'import site; print(site.getsitepackages()[0])')/macekit-base.pth"
  "$1/bin/pip" install --disable-pip-version-check --progress-bar off -r "$PWD/requirements-peer.txt"
}
peer() {
  local base; base=$(python | tail -n1); base=${base#*=}
  build_peer_here() { build_peer "$1" "$base"; }
  install peer "$(key "$(cat requirements-peer.txt)" "$base")" build_peer_here
}

for component in "$@"; do
  case "$component" in system | kokkos | kokkos_cuda | lammps | python | peer | wheel) "$component" ;; *) fail "unknown component $component; known: system kokkos kokkos_cuda lammps python peer wheel" ;; esac
done
