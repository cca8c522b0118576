#!/usr/bin/env bash
# Compiles the kernel data plane: deploy/bpf.sh [OUTPUT]. The result is committed, because users have no compiler.
# It is the same to the byte with Debian 12's clang 14, llvm and libbpf-dev; another clang makes another object.
set -euo pipefail
output=$(realpath -m "${1:-$(dirname "$0")/../xtr/dataplane/lisp.bpf.o}")
cd "$(dirname "$0")/../xtr/dataplane" # a relative name of the source: the object carries it

for tool in clang llvm-strip llvm-objcopy; do
    command -v "$tool" >/dev/null || {
        echo "$tool is missing; on Debian, as root: apt-get install clang llvm libbpf-dev" >&2
        exit 1
    }
done
mkdir -p "$(dirname "$output")"
# bytecode depends on the byte order alone: little-endian, which is what Linux machines are today
clang -O2 -g -Wall -Wextra -Werror -fdebug-compilation-dir=. -target bpfel -I"/usr/include/$(uname -m)-linux-gnu" -c lisp.bpf.c -o "$output"
# what libbpf needs are the types of the maps (.BTF); not debugging information, nor the source line of each instruction
llvm-strip -g "$output"
llvm-objcopy --remove-section=.BTF.ext --remove-section=.rel.BTF.ext "$output"
