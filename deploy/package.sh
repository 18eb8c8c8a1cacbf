#!/bin/sh
# Makes what a release consists of, in dist/: an sdist, the wheel that is built from it, and a bill of
# materials (CycloneDX) of what the wheel stands on, in the releases of constraints.txt.
#     deploy/package.sh [TAG]
# With a tag (v0.1.0) it has to be that of the version, CHANGELOG.md has to tell of it, and nothing may
# lie here that is not committed, as setuptools takes what is in the packages' folders.
# Needs .venv (make install), and the network for all but the first two.
set -eu
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin
uv="$bin/python -m uv"
version=$("$bin/python" -c 'import onebar; print(onebar.__version__)')
if [ -n "${1:-}" ]; then
    if [ "$1" != "v$version" ]; then
        echo "the tag is $1, and onebar/__init__.py says $version: tag v$version" >&2
        exit 1
    fi
    if ! grep -q "^## $version " CHANGELOG.md; then
        echo "CHANGELOG.md has no part '## $version DATE'" >&2
        exit 1
    fi
    if [ -n "$(git status --porcelain)" ]; then
        echo "there are files here that are not committed (git status)" >&2
        exit 1
    fi
fi

rm -rf dist build
$uv build --quiet --no-build-isolation --python "$bin/python" --out-dir dist
rm -f dist/.gitignore
wheel=dist/onebar-$version-py3-none-any.whl
$uv tool run --quiet twine check --strict dist/*.whl dist/*.tar.gz

# As somebody gets it who installs the wheel alone.
there=$(mktemp -d)
trap 'rm -rf "$there"' EXIT
$uv venv --quiet --python "$bin/python" "$there/venv"
$uv pip install --quiet --python "$there/venv/bin/python" -c constraints.txt "$wheel"
(cd "$there" && venv/bin/onebar version)
# Where the wheel lay on this machine is nobody's business.
rm "$there"/venv/lib/python*/site-packages/onebar-*.dist-info/direct_url.json
$uv tool run --quiet --from cyclonedx-bom cyclonedx-py environment --output-reproducible \
    --output-file "dist/onebar-$version.cdx.json" "$there/venv/bin/python"
(cd dist && sha256sum onebar-* >SHA256SUMS)
ls -l dist
