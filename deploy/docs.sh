#!/usr/bin/env bash
# Builds docs/ into build/site and fails on any warning: broken links and anchors (zensical), pages that the navigation lacks
# or that it names and are not there, reference pages that are not what the code says.
# Usage: deploy/docs.sh. PYTHON names the interpreter that has the extra `docs`; default: .venv's.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$PWD/.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { printf 'docs: %s\n' "$*" >&2; }

# the navigation, one page a line: "- Title: page.md" or "- page.md"
sed -nE 's/^ *- (.*: )?([^ :]+\.md)$/\2/p' mkdocs.yml | sort >"$work/named"
(cd docs && find . -name '*.md' -printf '%P\n') | sort >"$work/there"
if ! diff "$work/named" "$work/there" >"$work/difference"; then
    sed -nE 's/^< (.*)/docs: \1 is in the nav of mkdocs.yml and not in docs\/: remove it there/p
             s/^> (.*)/docs: \1 is not in the nav of mkdocs.yml: add it there/p' "$work/difference" >&2
    exit 1
fi

"$python" -m lispfmc.cli.reference "$work/reference"
if ! diff -r docs/reference "$work/reference" >&2; then
    say "docs/reference is not what the code says: run make reference"
    exit 1
fi

rm -rf build/site
"$python" -m zensical build --strict --clean --config-file mkdocs.yml >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    say "the build found what is listed above: correct it in docs/"
    exit 1
}
say "built into build/site: open build/site/index.html"
