#!/usr/bin/env bash
# gpu.sh [--double] [--rounds N] [--mib N] [--only NAME,…]: dump, restore and check of programs on an NVIDIA GPU, against the raw sequence (the driver's calls and plain
# criu) in the same run. Needs root, the driver (570 or newer), a C compiler, and nothing from the network; says what is missing.
#   --double   without a GPU: a double of the driver instead, to try out this script. Its figures say nothing of a GPU.
#   --rounds   of which the medians are shown (default 3)
#   --mib      device memory of each program (default 4096, 64 with --double)
#   --only     of the programs add, memory, graph, torch-infer and torch-train
# CUDA_LIBRARY: the driver's library, where it is not libcuda.so.1 on the usual path. CEDANA_BENCH_DIR: where checkpoints are written (/var/tmp).
# DOUBLE_SETTINGS: with --double, what the double is to be like (test/support/fake-cuda.c), so as to see what this script says of it.
set -euo pipefail

root=$(dirname "$(dirname "$(readlink -f "$0")")")
usage() { sed -n 's/^# \?//; 2,9p' "$0" >&2; exit 2; }
double=false rounds=3 mib= only=
while (($#)); do
  case $1 in
    --double) double=true ;;
    --rounds) rounds=${2-} && shift ;;
    --mib) mib=${2-} && shift ;;
    --only) only=${2-} && shift ;;
    *) usage ;;
  esac
  shift || usage
done
name='(add|memory|graph|torch-infer|torch-train)'
[[ $rounds =~ ^[1-9][0-9]*$ && ${mib:-1} =~ ^[1-9][0-9]*$ && ${only:-add} =~ ^$name(,$name)*$ ]] || usage

say() { echo "gpu: $*" >&2; }
missing() { say "missing: $*"; exit 1; }
[[ $EUID -eq 0 ]] || missing 'root: run this as root'
$double || [[ -e /dev/nvidiactl ]] || { say 'there is no GPU on this machine (no /dev/nvidiactl): nothing was measured. --double tries the script out.'; exit 1; }
# Without a network there may be packages missing that only building needs.
"$root/scripts/setup" >&2 || { [[ -e $root/dist/cedana.cjs ]] && say 'goes on with what has been built before'; } || missing 'what scripts/setup could not install or build'
type -P cc >/dev/null || missing 'a C compiler'
criu=$(type -P criu || true)
[[ ! -x /opt/cedana/criu/bin/criu ]] || criu=/opt/cedana/criu/bin/criu
[[ -n $criu ]] || missing criu

# What the caller has left open would be the programs' too, and plain criu might not know it. (255 is this script.)
for fd in $(ls "/proc/$$/fd"); do ((fd < 3 || fd == 255)) || eval "exec $fd>&-"; done

dir=$(mktemp -d "${CEDANA_BENCH_DIR:-/var/tmp}/cedana-gpu-XXXXXX")
daemon= program= cedana=$root/bin/cedana
cleanup() {
  local status=$?
  ((status == 0)) || tail -n 20 "$dir/daemon.log" >&2 2>/dev/null || true
  [[ -z $program ]] || kill -9 "$program" 2>/dev/null || true
  # Jobs outlive a daemon.
  [[ -z $daemon ]] || timeout 30 "$cedana" kill --all --yes >/dev/null 2>&1 || true
  [[ -z $daemon ]] || { kill "$daemon" && wait "$daemon"; } 2>/dev/null || true
  rm -rf "$dir"
}
trap cleanup EXIT

build() { cc -std=gnu17 -D_GNU_SOURCE -O2 -o "$dir/$1" "$root/bench/workloads/$1.c" -ldl; }
build cuda-loop
build cuda-calls

# --- which GPU ---

if $double; then
  library=$dir/libcuda.so.1
  cc -shared -fPIC -std=gnu17 -D_GNU_SOURCE -O2 -pthread -o "$library" "$root/test/support/fake-cuda.c"
  for node in nvidiactl nvidia0; do mknod -m 666 "$dir/$node" c 10 229; done
  printf '%s\nversion 13000\ndriver 580.65.06\ngib 4\n' "${DOUBLE_SETTINGS-}" >"$dir/settings"
  export CEDANA_GPU_CUDA_LIBRARY=$library CEDANA_GPU_NVML_LIBRARY=$library CEDANA_GPU_DEVICE_PREFIX=$dir/nvidia
  : "${mib:=64}"
  echo 'THE GPU IS A DOUBLE: what follows tries this script out, and says nothing of a GPU.'
else
  library=${CUDA_LIBRARY:-libcuda.so.1}
  [[ -z ${CUDA_LIBRARY:-} ]] || export CEDANA_GPU_CUDA_LIBRARY=$CUDA_LIBRARY
  : "${mib:=4096}"
fi
facts=$("$dir/cuda-calls" "$library" facts) || missing "a driver that works ($library)"
# Images of the one and of the other, at times beside each other; the program itself, and what the daemon holds of it.
free_disk=$(df -k --output=avail "$dir" | tail -n 1)
((free_disk / 1024 > mib * 2 + 3072)) || missing "$((mib * 2 + 3072)) MiB on the disk of $dir, where $((free_disk / 1024)) MiB are free (choose another by CEDANA_BENCH_DIR)"
free_memory=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)
((free_memory / 1024 > mib * 2 + 3072)) || missing "$((mib * 2 + 3072)) MiB of memory, where $((free_memory / 1024)) MiB are free (choose less by --mib)"
echo "$facts; $mib MiB on the device; $rounds rounds; $("$criu" --version | head -n 1); kernel $(uname -r)"

# --- a daemon of its own ---

export CEDANA_CONFIG_DIR=$dir/config CEDANA_ADDRESS=$dir/cedana.sock CEDANA_RUN_DIR=$dir/run CEDANA_DB_PATH=$dir/cedana.db \
  CEDANA_CHECKPOINT_DIR=$dir/checkpoints CEDANA_LOG_LEVEL=warn CEDANA_PROFILING_ENABLED=true NO_COLOR=1
mkdir "$dir/checkpoints" "$dir/results"
"$cedana" daemon start >"$dir/daemon.log" 2>&1 &
daemon=$!
for _ in {1..300}; do [[ ! -S $CEDANA_ADDRESS ]] || break; sleep 0.1; done
[[ -S $CEDANA_ADDRESS ]] || { cat "$dir/daemon.log" >&2; say 'the daemon did not start'; exit 1; }
"$cedana" check --full -o json >"$dir/check" 2>"$dir/check.log" || true
# Of container runtimes nothing is needed.
lacks=$(node -e 'const sections = JSON.parse(require("node:fs").readFileSync(process.argv[1], "utf8")).filter(({ name }) => ["criu", "host", "cuda"].includes(name))
console.log(sections.flatMap(({ components }) => components.flatMap(({ errors }) => errors)).join("; "))' "$dir/check") || { cat "$dir/check.log" >&2; exit 1; }
[[ -z $lacks ]] || missing "$lacks"

ms() { echo $(($(date +%s%N) / 1000000)); }
lives() { [[ -e /proc/$1 && $(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) != Z ]]; }
until_says() { # FILE WORD PID
  local is_there
  for _ in {1..3000}; do
    is_there=false
    ! lives "$3" || is_there=true
    ! grep -qx "$2" "$1" 2>/dev/null || return 0
    $is_there || break
    sleep 0.1
  done
  tail -n 20 "$1" >&2 || true
  say "the program (PID $3) did not say $2, and what it said is above"
  exit 1
}
until_gone() {
  for _ in {1..1500}; do [[ -e /proc/$1 ]] || return 0; sleep 0.02; done
  say "PID $1 does not end"
  exit 1
}

# --- one round each ---

ours() { # NAME ROUND COMMAND…
  local name=$1 round=$2 jid="gpu-$1-$2-$$" log="$dir/$1-$2.log" began
  shift 2
  local pid
  pid=$("$cedana" run process --jid "$jid" --out "$log" -- "$@" | sed -n 's/.*PID //p')
  until_says "$log" READY "$pid"
  began=$(ms)
  "$cedana" --profiling-path "$dir/dump.json" dump job "$jid" --name ours >/dev/null
  local dumped=$(($(ms) - began))
  began=$(ms)
  "$cedana" --profiling-path "$dir/restore.json" restore job "$jid" >/dev/null
  local restored=$(($(ms) - began))
  kill -USR1 "$pid"
  until_says "$log" PASS "$pid"
  rm -rf "$dir/checkpoints/ours"
  for _ in {1..100}; do ! "$cedana" delete "$jid" >/dev/null 2>&1 || break; sleep 0.1; done
  node - "$dir/dump.json" "$dir/restore.json" "$dumped" "$restored" >>"$dir/results/$name.ours" <<'JS'
const { readFileSync } = require('node:fs')
const [dump, restore] = process.argv.slice(2, 4).map((path) => JSON.parse(readFileSync(path, 'utf8')))
const step = (profile, name) => profile.components.find((one) => one.name === name) ?? {}
const ms = (one) => (one.duration ?? 0) / 1e6
const [lock, take, pages] = ['lock gpu', 'copy from gpu', 'criu dump'].map((name) => step(dump, name))
const [build, give] = ['criu restore', 'copy to gpu'].map((name) => step(restore, name))
const [dumped, restored] = process.argv.slice(4).map(Number)
console.log(JSON.stringify({ lock: ms(lock), take: ms(take), bytes: take.io ?? 0, pages: ms(pages), build: ms(build), give: ms(give), dumped, restored }))
JS
}

raw() { # NAME ROUND COMMAND…
  local name=$1 images="$dir/images" log="$dir/$1-$2.raw.log" pid began
  shift 2
  mkdir "$images"
  setsid "$@" <"/dev/null" >"$log" 2>&1 &
  pid=$! program=$!
  disown # and no word of its being killed
  until_says "$log" READY "$pid"
  local take give dumped restored
  take=$("$dir/cuda-calls" "$library" take "$pid")
  began=$(ms)
  "$criu" dump -t "$pid" -D "$images" -o dump.log >/dev/null || { tail -n 5 "$images/dump.log" >&2; say 'plain criu could not dump it'; exit 1; }
  dumped=$(($(ms) - began))
  until_gone "$pid"
  began=$(ms)
  "$criu" restore -d -D "$images" -o restore.log >/dev/null || { tail -n 5 "$images/restore.log" >&2; say 'plain criu could not restore it'; exit 1; }
  restored=$(($(ms) - began))
  give=$("$dir/cuda-calls" "$library" give "$pid")
  kill -USR1 "$pid"
  until_says "$log" PASS "$pid"
  program=
  rm -rf "$images"
  node -e 'const [take, give, dumped, restored] = process.argv.slice(1).map((text) => JSON.parse(text))
console.log(JSON.stringify({ dumped: take.lock + take.copy + dumped, restored: give.copy + give.unlock + restored }))' \
    "$take" "$give" "$dumped" "$restored" >>"$dir/results/$name.raw"
}

workload() { # NAME COMMAND…
  local round
  [[ -z $only || ,$only, == *,$1,* ]] || return 0
  for ((round = 0; round <= rounds; round++)); do # the first warms up
    ours "$1" "$round" "${@:2}"
    raw "$1" "$round" "${@:2}"
    ((round > 0)) || rm "$dir/results/$1".*
  done
  say "$1: done"
}

for kind in add memory graph; do workload "$kind" "$dir/cuda-loop" "$library" "$kind" "$mib"; done
if [[ -n $only && $only != *torch* ]]; then
  :
elif $double; then
  echo 'PyTorch: not run, since it needs a GPU.'
elif python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  for kind in infer train; do workload "torch-$kind" "$(type -P python3)" "$root/bench/workloads/torch-loop.py" "$kind"; done
else
  echo 'PyTorch: not run, missing: python3 with a torch that sees the GPU.'
fi

# --- medians ---

node - "$dir/results" <<'JS'
const { readdirSync, readFileSync } = require('node:fs')
const dir = process.argv[2]
const rows = (file) => readFileSync(`${dir}/${file}`, 'utf8').trim().split('\n').map((line) => JSON.parse(line))
const median = (list, key) => {
  const values = list.map((one) => one[key]).sort((a, b) => a - b)
  return (values[Math.floor((values.length - 1) / 2)] + values[Math.floor(values.length / 2)]) / 2
}
const ms = (value) => `${value.toFixed(value < 10 ? 1 : 0)} ms`
const rate = (bytes, took) => (bytes > 0 && took > 0 ? `, ${(bytes / took / 1e6).toFixed(1)} GB/s` : '')
console.log('\n| Workload | lock | copy to host | criu dump | criu restore | copy back | dump: ours / raw | restore: ours / raw |')
console.log('| --- | --- | --- | --- | --- | --- | --- | --- |')
for (const name of readdirSync(dir).filter((file) => file.endsWith('.ours')).map((file) => file.slice(0, -5))) {
  const [own, raw] = [rows(`${name}.ours`), rows(`${name}.raw`)]
  const of = (key) => median(own, key)
  const against = (key) => `${ms(of(key))} / ${ms(median(raw, key))} = ${(of(key) / median(raw, key)).toFixed(2)} ×`
  const cells = [name, ms(of('lock')), ms(of('take')) + rate(of('bytes'), of('take')), ms(of('pages')), ms(of('build')), ms(of('give')) + rate(of('bytes'), of('give')), against('dumped'), against('restored')]
  console.log(`| ${cells.join(' | ')} |`)
}
console.log('\nOurs: the whole command, with the checkpoint verified and on the disk. Raw: the calls of the driver (without cuInit) and plain criu, whose images are in the page cache.')
JS
